//! vtpmd.
