"""The op records, one family a file. Importing this package fills the registry."""

from gluonish.nd.ops import (
    along,
    attention,
    contract,
    create,
    elementary,
    elementwise,
    gather,
    move,
    normalize,
    random,
    recurrent,
    reduce,
    resize,
    rows,
    scan,
    sort,
    special,
    window,
)
