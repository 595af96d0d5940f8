//! Who calls.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::audit::{Actor, RequestId};
use crate::quota::MAX_CALLER;
use crate::tenant::Permissions;

/// Bytes of the hash in a name, of which there are few callers of one tenant to tell apart.
const HASH: usize = 8;

/// Who calls, as far as a tenant's server needs to know.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by the pool from a TenantAccess")]
pub struct Caller {
    /// For the audit log.
    pub actor: Actor,
    /// What it may do here.
    pub permissions: Permissions,
    /// Where from.
    pub peer: Option<String>,
    /// The request that this call is; `None` makes each call a request of its own.
    pub request_id: Option<RequestId>,
    /// Cancelled before a call is dropped that its caller did not leave.
    pub cut: CancellationToken,
}

impl Caller {
    /// As what it is counted.
    pub(super) fn name(&self) -> Cow<'_, str> {
        counted_as(&self.actor)
    }
}

/// What tells `actor` from the other callers of a tenant, in [`MAX_CALLER`] bytes at most: who is
/// refused, and who subscribes, is counted by it.
///
/// Names that somebody else gives may be long, and two issuers may give the same: those end in a
/// hash of all that there is of them.
pub fn counted_as(actor: &Actor) -> Cow<'_, str> {
    let (issuer, name) = match actor {
        Actor::Anonymous => (None, "anonymous"),
        Actor::Embedder => (None, "embedder"),
        Actor::Operator { name } => (None, name.as_str()),
        Actor::Service => (None, "service"),
        Actor::Subject { issuer, subject } => (Some(issuer.as_str()), subject.as_str()),
        Actor::Token { id } => (None, id.as_str()),
    };
    if issuer.is_none() && name.len() <= MAX_CALLER {
        return Cow::Borrowed(name);
    }
    let hash = Sha256::new()
        .chain_update(issuer.unwrap_or_default())
        // Which no text has.
        .chain_update([0xff])
        .chain_update(name)
        .finalize();
    let hash = &hash[..HASH];
    let head = &name[..name.floor_char_boundary(MAX_CALLER - 1 - 2 * HASH)];
    Cow::Owned(hash.iter().fold(format!("{head}#"), |name, byte| format!("{name}{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn caller(actor: Actor) -> Caller {
        Caller {
            actor,
            permissions: Permissions::READ,
            peer: None,
            request_id: None,
            cut: CancellationToken::new(),
        }
    }

    fn subject(issuer: &str, subject: &str) -> Caller {
        caller(Actor::Subject { issuer: issuer.to_owned(), subject: subject.to_owned() })
    }

    #[test]
    fn callers_that_differ_anywhere_have_names_that_differ() {
        let long = "x".repeat(254);
        let callers = [
            subject("corp", "ann"),
            subject("other", "ann"),
            subject("cor", "pann"),
            subject("corp", &format!("{long}a")),
            subject("corp", &format!("{long}b")),
            subject("corp", &"\u{e9}".repeat(100)),
            subject("", "embedder"),
            subject("corp", "tok_0123456789ab"),
            caller(Actor::Embedder),
            caller(Actor::Token { id: "tok_0123456789ab".to_owned() }),
            caller(Actor::Operator { name: format!("{long}a") }),
            caller(Actor::Operator { name: format!("{long}b") }),
        ];
        let names: HashSet<_> = callers.iter().map(Caller::name).collect();
        assert_eq!(names.len(), callers.len(), "{names:?}");
        assert!(names.iter().all(|name| name.len() <= MAX_CALLER), "{names:?}");
    }

    #[test]
    fn a_caller_has_one_name_and_people_can_tell_whose_it_is() {
        let name = subject("corp", "ann").name().into_owned();
        assert_eq!(name, subject("corp", "ann").name());
        assert!(name.starts_with("ann#") && name.len() == "ann#".len() + 16, "{name}");
        let token = caller(Actor::Token { id: "tok_0123456789ab".to_owned() });
        assert_eq!(token.name(), "tok_0123456789ab");
        let operator = caller(Actor::Operator { name: "root [0]".to_owned() });
        assert_eq!(operator.name(), "root [0]");
    }
}
