//! The browser's door to [`zebra_runtime`]. It compiles the runtime for wasm32 and holds its version; the package's
//! own interface comes with the browser work.

/// The version of the runtime inside this bundle.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
