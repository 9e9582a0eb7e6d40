//! libFuzzer's way into [`ottla_fuzz::quorum`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ottla_fuzz::quorum::run(data);
});
