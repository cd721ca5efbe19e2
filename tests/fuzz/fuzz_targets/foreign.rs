//! Fuzzes `readers::foreign`, which says what must hold.
#![no_main]

#[path = "../../src/readers.rs"]
#[allow(dead_code)]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| readers::foreign(data));
