#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantry::http::fuzzing::message(bytes));
