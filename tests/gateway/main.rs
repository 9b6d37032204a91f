//! Black-box tests of `sentineld`.
