//! A URI has one spelling, and belongs to the tenant that a search for its end in the text finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::tenant::{IdRule, ResourceUri, Scope, TenantId};

fuzz_target!(|text: &str| {
    let Ok(uri) = ResourceUri::parse(text) else { return };
    assert_eq!(uri.to_string(), text);
    let tenant = text["mcp://".len()..].split('/').next();
    assert_eq!(tenant, Some(uri.tenant().as_str()));
    let own = TenantId::parse("tenant001", IdRule::Alphanumeric).expect("an id");
    if Scope::new(own.clone()).admit(&uri).is_ok() {
        assert_eq!(*uri.tenant(), own);
    }
});
