"""The op records, one family a file. Importing this package fills the registry."""

from gluonish.nd.ops import (
    along,
    attention,
    contract,
    create,
    elementwise,
    gather,
    move,
    normalize,
    random,
    recurrent,
    reduce,
    scan,
    sort,
    window,
)
