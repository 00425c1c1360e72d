//! Letting the worker's event loop run while the engine computes, so that Stop is heard.

use js_sys::Promise;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use web_sys::MessageChannel;

use crate::tensor::plan::Breath;

/// One turn of the event loop. A message to oneself: a timer would wait four milliseconds, a resolved promise not at
/// all.
pub(super) fn breath() -> Breath {
    Box::pin(async {
        let Ok(channel) = MessageChannel::new() else { return };
        let turn = Promise::new(&mut |resolve, _| {
            channel.port1().set_onmessage(Some(&resolve));
            if channel.port2().post_message(&JsValue::NULL).is_err() {
                // Without a message there is nothing to wait for.
                drop(resolve.call0(&JsValue::NULL));
            }
        });
        // It never rejects.
        drop(JsFuture::from(turn).await);
        channel.port1().close();
    })
}
