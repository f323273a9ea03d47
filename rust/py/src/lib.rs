//! The Python module `taskvec._core`: a thin layer over `taskvec_core`, without arithmetic of its own.
