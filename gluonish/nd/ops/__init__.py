"""The op records, one family a file. Importing this package fills the registry."""

from gluonish.nd.ops import contract, create, elementwise, gather, move, random, reduce, window
