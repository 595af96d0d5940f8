//! Resource URIs: `mcp://{tenant}/{path}`, parsed once and never normalised into validity.
//!
//! ```text
//! mcp://{tenant}/database                                  the whole database
//! mcp://{tenant}/database/table/{name}                     …/view/{name}
//! mcp://{tenant}/database/schema/{schema}/table/{name}     …/view/{name}
//! mcp://{tenant}/api/{provider}
//! ```
//!
//! There is exactly one spelling of each: the scheme in lower case, the tenant without any
//! encoding, a path segment in which a byte is percent-encoded (upper-case hex) if and only if it
//! is not `A-Z a-z 0-9 . _ ~ -`. What decodes to `/`, `\`, `%`, a control character, `.` or `..` is
//! refused, and so is what is not ASCII but for letters and digits: there is no such thing as a bar
//! that looks like another, or a sign that changes the direction of what follows.

use std::fmt;

use super::{IdRule, InvalidTenantId, RelationName, TenantId};

/// Longest URI that is looked at, in bytes.
const MAX_LENGTH: usize = 1024;
const SCHEME: &str = "mcp://";

/// A well-formed URI of some tenant, perhaps not the caller's.
#[derive(Clone, Eq, PartialEq)]
pub struct ResourceUri {
    tenant: TenantId,
    /// Decoded.
    segments: Vec<String>,
}

/// What a URI names inside a tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Resource {
    /// A key of an outside service: that it is set, its age and fingerprint.
    Api {
        /// The provider's name, a key of `api_keys`.
        provider: String,
    },
    /// Everything that `access` allows.
    Database,
    /// One table.
    Table(RelationName),
    /// One view.
    View(RelationName),
}

/// A URI inside the caller's own tenant. Made only by [`Scope::admit`]:
///
/// ```compile_fail,E0451
/// let forged = tenantry::tenant::ScopedUri { resource: tenantry::tenant::Resource::Database };
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScopedUri {
    resource: Resource,
}

/// The one tenant whose URIs are admitted.
#[derive(Clone, Debug)]
pub struct Scope(TenantId);

/// Why text is not a resource URI, or not one that may be used here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUri {
    /// The tenant of the URI is not the caller's.
    #[error("the URI belongs to another tenant")]
    Foreign,
    /// Not the grammar of this module.
    #[error("not a resource URI; the form is mcp://{{tenant}}/database/table/{{name}}")]
    Malformed,
    /// The tenant part can be no tenant's id.
    #[error(transparent)]
    Tenant(#[from] InvalidTenantId),
    /// Well formed, the caller's own, and names no kind of resource that exists.
    #[error("no such resource; list_tenant_resources shows what there is")]
    Unknown,
}

impl ResourceUri {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidUri::Malformed`] or [`InvalidUri::Tenant`].
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidUri::Malformed);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidUri::Malformed)?;
        let (tenant, path) = rest.split_once('/').ok_or(InvalidUri::Malformed)?;
        if !tenant.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
            return Err(InvalidUri::Malformed);
        }
        // The wider rule: whether this deployment admits such ids does not matter for whose it is.
        let tenant = TenantId::parse(tenant, IdRule::AllowUnderscore)?;
        let segments = path.split('/').map(decode).collect::<Result<_, _>>()?;
        Ok(Self { tenant, segments })
    }

    /// Whose URI this claims to be.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The URI of `resource` of `tenant`.
    pub fn of(tenant: &TenantId, resource: &Resource) -> Self {
        let relation = |kind: &str, relation: &RelationName| {
            let mut segments = vec!["database".to_owned()];
            if let Some(schema) = &relation.schema {
                segments.extend(["schema".to_owned(), schema.clone()]);
            }
            segments.extend([kind.to_owned(), relation.name.clone()]);
            segments
        };
        let segments = match resource {
            Resource::Api { provider } => vec!["api".to_owned(), provider.clone()],
            Resource::Database => vec!["database".to_owned()],
            Resource::Table(name) => relation("table", name),
            Resource::View(name) => relation("view", name),
        };
        Self { tenant: tenant.clone(), segments }
    }

    /// Whether its text is a URI that reads back as this one: not every name that a database can have
    /// is within the grammar.
    pub fn is_well_formed(&self) -> bool {
        Self::parse(&self.to_string()).is_ok_and(|read| read == *self)
    }

    fn resource(&self) -> Option<Resource> {
        let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        let named = |schema: Option<&str>, name: &str| RelationName {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        };
        match segments[..] {
            ["database"] => Some(Resource::Database),
            ["database", "table", name] => Some(Resource::Table(named(None, name))),
            ["database", "view", name] => Some(Resource::View(named(None, name))),
            ["database", "schema", schema, "table", name] => {
                Some(Resource::Table(named(Some(schema), name)))
            }
            ["database", "schema", schema, "view", name] => {
                Some(Resource::View(named(Some(schema), name)))
            }
            ["api", provider] => Some(Resource::Api { provider: provider.to_owned() }),
            _ => None,
        }
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.tenant)?;
        for segment in &self.segments {
            f.write_str("/")?;
            for byte in segment.bytes() {
                if is_unreserved(byte) {
                    write!(f, "{}", char::from(byte))?;
                } else {
                    write!(f, "%{byte:02X}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Scope {
    /// The scope of `tenant`.
    pub fn new(tenant: TenantId) -> Self {
        Self(tenant)
    }

    /// The tenant whose URIs are admitted.
    pub fn tenant(&self) -> &TenantId {
        &self.0
    }

    /// Admits `uri` if it is this tenant's own and names a kind of resource.
    ///
    /// # Errors
    ///
    /// [`InvalidUri::Foreign`] before anything about the path is looked at, so that the answer says
    /// nothing of the other tenant; else [`InvalidUri::Unknown`].
    pub fn admit(&self, uri: &ResourceUri) -> Result<ScopedUri, InvalidUri> {
        if uri.tenant != self.0 {
            return Err(InvalidUri::Foreign);
        }
        uri.resource().map(|resource| ScopedUri { resource }).ok_or(InvalidUri::Unknown)
    }
}

impl ScopedUri {
    /// What the URI names.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }
}

/// Puts `path` under `tenant`: `database/table/customers` becomes
/// `mcp://tenant001/database/table/customers`.
///
/// # Errors
///
/// [`InvalidUri::Malformed`] when `path` is absolute, has empty segments, or a byte that has to be
/// percent-encoded and is not.
pub fn scope_uri(path: &str, tenant: &TenantId) -> Result<ResourceUri, InvalidUri> {
    ResourceUri::parse(&format!("{SCHEME}{tenant}/{path}"))
}

/// Whether `uri` is a well-formed URI of `tenant`.
pub fn validate_uri_access(uri: &str, tenant: &TenantId) -> bool {
    ResourceUri::parse(uri).is_ok_and(|uri| uri.tenant == *tenant)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

/// Decodes one path segment, once.
fn decode(segment: &str) -> Result<String, InvalidUri> {
    let hex = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let literal = if byte == b'%' {
            let high = bytes.next().and_then(hex).ok_or(InvalidUri::Malformed)?;
            let low = bytes.next().and_then(hex).ok_or(InvalidUri::Malformed)?;
            let byte = high << 4 | low;
            let needs_encoding = matches!(byte, b' '..=b'~') && !is_unreserved(byte);
            let is_part_of_another = !byte.is_ascii();
            if !(needs_encoding || is_part_of_another) || matches!(byte, b'/' | b'\\' | b'%') {
                return Err(InvalidUri::Malformed);
            }
            byte
        } else if is_unreserved(byte) {
            byte
        } else {
            return Err(InvalidUri::Malformed);
        };
        decoded.push(literal);
    }
    let decoded = String::from_utf8(decoded).map_err(|_| InvalidUri::Malformed)?;
    let is_confusing = |character: char| !character.is_ascii() && !character.is_alphanumeric();
    if decoded.is_empty() || decoded == "." || decoded == ".." || decoded.contains(is_confusing) {
        return Err(InvalidUri::Malformed);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(text: &str) -> TenantId {
        TenantId::parse(text, IdRule::AllowUnderscore).unwrap()
    }

    #[test]
    fn each_form_names_its_resource_and_is_written_back_as_it_was_read() {
        let own = Scope::new(tenant("tenant001"));
        let relation = |schema: Option<&str>, name: &str| RelationName {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        };
        for (path, resource) in [
            ("database", Resource::Database),
            ("database/table/customers", Resource::Table(relation(None, "customers"))),
            ("database/view/order_totals", Resource::View(relation(None, "order_totals"))),
            ("database/table/Order%20Details", Resource::Table(relation(None, "Order Details"))),
            ("database/schema/sales/table/a.b", Resource::Table(relation(Some("sales"), "a.b"))),
            ("database/table/caf%C3%A9", Resource::Table(relation(None, "café"))),
            ("database/table/%E5%8F%97%E6%B3%A8", Resource::Table(relation(None, "受注"))),
            ("database/schema/sales/view/v", Resource::View(relation(Some("sales"), "v"))),
            ("api/openai", Resource::Api { provider: "openai".to_owned() }),
        ] {
            let uri = scope_uri(path, own.tenant()).unwrap();
            assert_eq!(uri.to_string(), format!("mcp://tenant001/{path}"));
            assert_eq!(own.admit(&uri).unwrap().resource(), &resource);
            assert_eq!(ResourceUri::of(own.tenant(), &resource), uri);
        }
    }

    #[test]
    fn another_tenants_uri_is_foreign_whatever_its_path() {
        let own = Scope::new(tenant("tenant001"));
        for text in
            ["mcp://tenant002/database", "mcp://tenant002/no/such", "mcp://Tenant001/database"]
        {
            let uri = ResourceUri::parse(text).unwrap();
            assert_eq!(own.admit(&uri), Err(InvalidUri::Foreign), "{text}");
            assert!(!validate_uri_access(text, own.tenant()));
        }
        let unknown = ResourceUri::parse("mcp://tenant001/no/such").unwrap();
        assert_eq!(own.admit(&unknown), Err(InvalidUri::Unknown));
        assert!(validate_uri_access("mcp://tenant001/database", own.tenant()));
    }

    /// Spellings that some parser somewhere takes for tenant `acme01` or for another one.
    #[test]
    fn confusable_spellings_are_refused() {
        let long_tenant = format!("mcp://{}/x", "a".repeat(65_536));
        let long_path = format!("mcp://acme01/{}", "a".repeat(65_536));
        let confusables = [
            "MCP://acme01/x",
            "mcp://acme01%2e/x",
            "mcp://%61cme01/x",
            "mcp://acme01%2Fother1/x",
            "mcp://acme01%252Fother1/x",
            "mcp://acme01./x",
            "mcp://acme01..other1/x",
            "mcp://other1@acme01/x",
            "mcp://acme01@other1/x",
            "mcp://acme01:other1@other1/x",
            "mcp://acme01:80/x",
            "mcp://acme01:/x",
            "mcp://acme01#@other1/x",
            "mcp://acme01?@other1/x",
            "mcp://acme01\\@other1/x",
            "mcp://acme01\\other1/x",
            "mcp:/acme01/x",
            "mcp:acme01/x",
            "mcp:///acme01/x",
            "mcp://",
            "mcp:////other1/x",
            "//other1/x",
            "mcp://acme01/../other1/x",
            "mcp://acme01/%2e%2e/other1/x",
            "mcp://acme01/..%2fother1",
            "mcp://acme01/.%2e/x",
            "mcp://acme01/%2E%2E/x",
            "mcp://acme01/x%00.json",
            "mcp://acme01/x\0",
            "mcp://acme01 /x",
            " mcp://acme01/x",
            "mcp://acme01/x ",
            "mcp://acme01/x\r\nX: y",
            "m\tcp://acme01/x",
            "mcp://аcme01/x",
            "mcp://acmе01/x",
            "mcp://acme01\u{200b}/x",
            "mcp://acme01\u{202e}/x",
            "mcp://ａｃｍｅ01/x",
            "mcp://acmé01/x",
            "mcp://acme\u{301}01/x",
            "mcp://xn--cme-5cd/x",
            "mcp://acme01。/x",
            "mcp://acme01%EF%BC%8Fother1/x",
            "mcp://ſcme01/x",
            "mcp://\u{212a}cme01/x",
            "mcp://[::1]/x",
            "mcp://acme01;v=1/x",
            "mcp://acme01/x;jsessionid=1",
            "mcp://acme01//x",
            "mcp://acme01/tables/a/../../../other1/tables/b",
            "mcp://acme01/",
            "mcp://acme01",
            "mcp://{tenant}/x",
            "mcp://acme01/{+path}",
            "mcp://acme01/x?y=1",
            "mcp://acme01/x#y",
            "mcp://acme01/%61",
            "mcp://acme01/a%2fb",
            "mcp://acme01/a%2Fb",
            "mcp://acme01/a%25",
            "mcp://acme01/a%5C",
            "mcp://acme01/%",
            "mcp://acme01/%2",
            "mcp://acme01/caf\u{e9}",
            "mcp://acme01/caf%c3%a9",
            "mcp://acme01/caf%E9",
            "mcp://acme01/caf%C3",
            "mcp://acme01/a%C0%AFb",
            "mcp://acme01/a%EF%BC%8Fb",
            "mcp://acme01/a%E2%81%84b",
            "mcp://acme01/a%E2%80%AEb",
            "mcp://acme01/a%E2%80%8Bb",
            "mcp://acme01/a%C2%85b",
            "mcp://acme01/a%C2%A0b",
            "mcp://acme%C3%A901/x",
            &long_tenant,
            &long_path,
        ];
        for text in confusables {
            assert!(ResourceUri::parse(text).is_err(), "{text:.80} was accepted");
        }
        assert!(ResourceUri::parse("mcp://acme01/x").is_ok());
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_one_spelling(text in "mcp://[a-zA-Z0-9_%./]{0,12}/[ -~]{0,24}") {
            if let Ok(uri) = ResourceUri::parse(&text) {
                prop_assert_eq!(uri.to_string(), text);
            }
        }

        #[test]
        fn any_printable_name_survives_the_round_trip(name in "[ -$&-.0-\\[\\]-~äßñ受Я७]{1,40}") {
            prop_assume!(name != "." && name != "..");
            let own = tenant("tenant001");
            let table = Resource::Table(RelationName { schema: None, name });
            let uri = ResourceUri::of(&own, &table);
            let read = ResourceUri::parse(&uri.to_string()).unwrap();
            let admitted = Scope::new(own).admit(&read).unwrap();
            prop_assert_eq!(admitted.resource(), &table);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "\\PC*") {
            drop(ResourceUri::parse(&text));
        }
    }
}
