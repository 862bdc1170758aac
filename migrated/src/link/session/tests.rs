//! Tests of the module above: written next.
