//! The page's clock and timer: the runtime has none.

use js_sys::{Function, Promise};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(then: &Function, milliseconds: f64);
}

/// Milliseconds since the worker began.
pub fn now() -> f64 {
    performance_now()
}

/// Waits.
pub async fn sleep(milliseconds: f64) {
    let promise = Promise::new(&mut |resolve, _| set_timeout(&resolve, milliseconds));
    // A promise that only resolves.
    let _ = JsFuture::from(promise).await;
}
