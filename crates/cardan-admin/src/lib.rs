//! Cardan's control plane over HTTP.
