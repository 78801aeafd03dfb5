//! The runtime through its public interface, with real WebAssembly.

mod smoke;
