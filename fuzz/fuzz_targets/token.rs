//! A token has one spelling: no other text of its length and alphabet that differs in one character
//! is one, and nothing that is shown of it says what it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::auth::Token;

fuzz_target!(|text: &str| {
    let Some(token) = Token::parse(text) else { return };
    assert_eq!(text.len(), 52);
    assert_eq!(format!("{token:?}"), "Token");
    for at in 0..text.len() {
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        assert!(Token::parse(&format!("{}{other}{}", &text[..at], &text[at + 1..])).is_none());
    }
});
