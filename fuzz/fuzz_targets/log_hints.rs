//! libFuzzer's way into the hints of [`ottla_fuzz::log_directory`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ottla_fuzz::log_directory::run_hints(data);
});
