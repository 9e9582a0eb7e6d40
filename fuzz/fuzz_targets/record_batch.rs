//! libFuzzer's way into [`ottla_fuzz::record_batch`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ottla_fuzz::record_batch::run(data));
