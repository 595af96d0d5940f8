//! Which members `params` has, of requests of every revision that is served.
//!
//! ```text
//! {"name":…,"arguments":…,"_meta":{…}}    + "tenant_id":…    refused, and recorded as an attempt
//!     of the method        anything       + "bogus":…        refused
//! ```
//!
//! What a reader does not know it drops: a caller that chose a tenant there would be answered as if
//! it had not, for the tenant of its token. Only `_meta` is for whatever clients like.

use super::super::json::Member;
use super::Problem;
use crate::server::chooses_tenant;

/// Whether `members` are members of `params` of `method`, and theirs of them. Of a method that is
/// not known all are: it does nothing.
pub(super) fn check(method: &str, members: &[Member<'_>]) -> Result<(), Problem> {
    let Some(known) = known(method) else { return Ok(()) };
    for member in members.iter().filter(|member| member.key != "_meta") {
        check_key(&member.key, known)?;
        let Some(known) = known_of(&member.key) else { continue };
        member.value.members().iter().try_for_each(|member| check_key(&member.key, known))?;
    }
    Ok(())
}

fn check_key(key: &str, known: &[&str]) -> Result<(), Problem> {
    if known.contains(&key) {
        return Ok(());
    }
    Err(if chooses_tenant(key) { Problem::Tenant } else { Problem::Parameter })
}

fn known(method: &str) -> Option<&'static [&'static str]> {
    Some(match method {
        "completion/complete" => &["argument", "context", "ref"],
        "initialize" => &["capabilities", "clientInfo", "protocolVersion"],
        "logging/setLevel" => &["level"],
        "ping" | "server/discover" => &[],
        "prompts/get" => &["arguments", "inputResponses", "name", "requestState"],
        "prompts/list" | "resources/list" | "resources/templates/list" | "tools/list" => {
            &["cursor"]
        }
        "resources/read" => &["inputResponses", "requestState", "uri"],
        "resources/subscribe" | "resources/unsubscribe" => &["uri"],
        "subscriptions/listen" => &["notifications"],
        // 2025-11-25 has `task`, which a server without tasks does not heed.
        "tools/call" => &["arguments", "inputResponses", "name", "requestState", "task"],
        _ => return None,
    })
}

/// Of members that are objects of the protocol's own and of one form.
fn known_of(member: &str) -> Option<&'static [&'static str]> {
    Some(match member {
        "argument" => &["name", "value"],
        "context" => &["arguments"],
        "ref" => &["name", "title", "type", "uri"],
        "task" => &["ttl"],
        _ => return None,
    })
}
