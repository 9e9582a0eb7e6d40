//! libFuzzer's way into [`ottla_fuzz::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ottla_fuzz::frame::run(data);
});
