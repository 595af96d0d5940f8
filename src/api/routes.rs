//! Every route, once: what the service answers, what the client sends, and what the documents say.
//!
//! A route is a [`Command`](crate::admin::Command) and nothing more: the parts of its path and the
//! members of its query or body are the command's fields. Two are none: `health`, and the import,
//! whose tenants do not fit into a command.

use std::fmt::Write as _;

use crate::auth::Role;

/// How every path begins.
pub(super) const ROOT: &str = "/api/v1";

/// Who may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// Anybody who reaches the listener.
    Anybody,
    /// Whoever has this role, or one above it.
    Role(Role),
    /// An operator on this machine: what it names is a path or a program of the service's host.
    SocketOnly,
}

/// One of the API's operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Behind [`ROOT`]; `{name}` is one part without `/` and `:`.
    pub(super) path: &'static str,
    /// The command's name in its serde form.
    pub(super) command: &'static str,
    /// What the audit log calls it.
    pub(super) action: &'static str,
    pub(super) access: Access,
    /// Whether it is answered while the vault is sealed.
    pub(super) while_sealed: bool,
    /// Members of the query (GET) or of the body, of which [`SECRET`] ones are secrets, or have some.
    pub(super) members: &'static [&'static str],
    /// What it is for.
    about: &'static str,
}

/// Members that hold secrets, in the order in which commands take those.
pub(super) const SECRET: [&str; 5] =
    ["proof", "proofs", "slot", "old_passphrase", "new_passphrase"];
/// Members of a query, and parts of a path, that are numbers.
pub(super) const NUMBERS: [&str; 2] = ["id", "limit"];
/// Members of a query that are true or false.
pub(super) const FLAGS: [&str; 5] =
    ["dry_run", "readmit", "allow_privileged", "check_roles", "skip_privileged"];

const AUDITOR: Access = Access::Role(Role::Auditor);
const OPERATOR: Access = Access::Role(Role::Operator);

const fn route(
    (method, path): (&'static str, &'static str),
    (command, action): (&'static str, &'static str),
    access: Access,
    members: &'static [&'static str],
    about: &'static str,
) -> Route {
    Route { method, path, command, action, access, while_sealed: false, members, about }
}

const fn sealed_too(route: Route) -> Route {
    Route { while_sealed: true, ..route }
}

/// The import, which is no command.
pub(super) const IMPORT: &str = "tenant_import";
/// The answer to whoever asks whether anybody is there.
pub(super) const HEALTH: &str = "health";

#[rustfmt::skip]
pub(super) static ROUTES: [Route; 37] = [
    sealed_too(route(("GET", "/health"), (HEALTH, "health"), Access::Anybody, &[],
        "whether the service answers")),
    sealed_too(route(("GET", "/status"), ("status", "status"), AUDITOR, &[],
        "what there is and how it is")),
    sealed_too(route(("POST", "/doctor"), ("doctor", "doctor"), OPERATOR, &["tenant"],
        "asks tenants' databases, of all or of one")),
    sealed_too(route(("POST", "/seal"), ("seal", "vault.seal"), OPERATOR, &[],
        "destroys the keys in memory")),
    sealed_too(route(("POST", "/unseal"), ("unseal", "vault.unseal"), OPERATOR, &["proof", "accept_rollback"],
        "loads them again")),
    sealed_too(route(("POST", "/settings:reload"), ("reload", "settings.reload"), OPERATOR, &[],
        "reads the settings anew")),
    route(("POST", "/reseal"), ("reseal", "vault.reseal"), OPERATOR, &[],
        "finishes what a change of keys began"),
    route(("POST", "/fsck"), ("fsck", "vault.fsck"), OPERATOR, &["proof"],
        "checks everything that is stored"),
    sealed_too(route(("GET", "/slots"), ("slot_list", "slot.list"), AUDITOR, &[],
        "the ways to unseal")),
    route(("POST", "/slots"), ("slot_add", "slot.add"), OPERATOR, &["proof", "slot"],
        "another one"),
    route(("POST", "/slots/{id}:remove"), ("slot_remove", "slot.remove"), OPERATOR, &["proof"],
        "one less"),
    route(("POST", "/passphrase:change"), ("passphrase_change", "passphrase.change"), OPERATOR, &["old_passphrase", "new_passphrase"],
        "replaces a passphrase"),
    route(("POST", "/root:rotate"), ("root_rotate", "root.rotate"), OPERATOR, &["proofs", "drop_others", "reseal"],
        "makes a new root key"),
    route(("GET", "/tenants"), ("tenant_list", "tenant.list"), AUDITOR, &["cursor", "limit"],
        "every tenant"),
    route(("POST", "/tenants:import"), (IMPORT, "tenant.import"), OPERATOR, &["dry_run", "readmit", "allow_privileged", "check_roles", "skip_privileged"],
        "imports tenants, see below; the members are of the query"),
    route(("POST", "/tenants:remove"), ("tenant_remove", "tenant.remove"), OPERATOR, &["proof", "tenants"],
        "destroys tenants' keys, for good"),
    route(("GET", "/tenants/{tenant}"), ("tenant_show", "tenant.show"), AUDITOR, &[],
        "a tenant without its secrets"),
    route(("POST", "/tenants/{tenant}:enable"), ("tenant_enable", "tenant.enable"), OPERATOR, &[],
        "lets it be served again"),
    route(("POST", "/tenants/{tenant}:disable"), ("tenant_disable", "tenant.disable"), OPERATOR, &[],
        "stops serving it"),
    route(("POST", "/tenants/{tenant}:seal"), ("tenant_seal", "tenant.seal"), OPERATOR, &["proof"],
        "destroys its keys in memory"),
    route(("POST", "/tenants/{tenant}:unseal"), ("tenant_unseal", "tenant.unseal"), OPERATOR, &["proof"],
        "loads them again"),
    route(("POST", "/tenants/{tenant}:rotate-key"), ("tenant_key_rotate", "tenant-key.rotate"), OPERATOR, &[],
        "gives it a new key"),
    route(("GET", "/tenants/{tenant}/quota"), ("quota_show", "quota.show"), AUDITOR, &[],
        "what it may use, and has used"),
    route(("PATCH", "/tenants/{tenant}/quota"), ("quota_set", "quota.set"), OPERATOR, &["quotas"],
        "sets quotas by name: a number, or `null`, which is unlimited"),
    route(("POST", "/tenants/{tenant}/quota:reset"), ("quota_reset", "quota.reset"), OPERATOR, &[],
        "forgets what it has used"),
    route(("GET", "/tokens"), ("token_list", "token.list"), AUDITOR, &["cursor", "limit"],
        "clients' tokens without their secrets"),
    route(("POST", "/tokens"), ("token_create", "token.create"), OPERATOR, &["tenant", "scopes", "expires_at"],
        "makes one; the answer is the only place where it is shown"),
    route(("DELETE", "/tokens/{token_id}"), ("token_revoke", "token.revoke"), OPERATOR, &[],
        "makes it worthless"),
    route(("GET", "/operators"), ("operator_list", "operator.list"), AUDITOR, &[],
        "operators' tokens without their secrets"),
    route(("POST", "/operators"), ("operator_create", "operator.create"), OPERATOR, &["role", "expires_at"],
        "makes one; the answer is the only place where it is shown"),
    route(("DELETE", "/operators/{operator_id}"), ("operator_revoke", "operator.revoke"), OPERATOR, &[],
        "makes it worthless; `all` for every one"),
    sealed_too(route(("GET", "/audit"), ("audit_list", "audit.list"), AUDITOR, &["code", "tenant", "since", "cursor", "limit"],
        "entries of the audit log, oldest first")),
    sealed_too(route(("GET", "/audit:verify"), ("audit_verify", "audit.verify"), AUDITOR, &[],
        "checks the audit log")),
    route(("GET", "/backups"), ("backup_list", "backup.list"), AUDITOR, &[],
        "the backups that are known"),
    route(("POST", "/backups"), ("backup_create", "backup.create"), Access::SocketOnly, &["path", "proof", "slot", "verify"],
        "makes one, in a file of the service's host"),
    sealed_too(route(("POST", "/backups:verify"), ("backup_verify", "backup.verify"), Access::SocketOnly, &["path", "proof", "scratch"],
        "restores one into a scratch place, and removes it again")),
    route(("DELETE", "/backups/{backup_id}"), ("backup_forget", "backup.forget"), OPERATOR, &[],
        "forgets one whose file is gone"),
];

/// What a method and a path lead to.
pub(super) enum Found<'a> {
    /// A route, and the parts of the path that it names.
    Route(&'static Route, Vec<(&'static str, &'a str)>),
    /// There are routes of this path, for another method.
    OtherMethod,
    Nothing,
}

/// The route of `method` at `path`, which is undecoded and without its query.
pub(super) fn find<'a>(method: &str, path: &'a str) -> Found<'a> {
    let Some(path) = path.strip_prefix(ROOT) else { return Found::Nothing };
    let mut is_path = false;
    for route in &ROUTES {
        if let Some(parts) = matches(route.path, path) {
            if route.method == method {
                return Found::Route(route, parts);
            }
            is_path = true;
        }
    }
    if is_path { Found::OtherMethod } else { Found::Nothing }
}

/// The route of a command, by its name in its serde form.
pub(super) fn of_command(command: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.command == command)
}

/// The named parts of `path` if it is one of `template`.
fn matches<'a>(template: &'static str, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
    let mut parts = Vec::new();
    let (mut template, mut path) = (template, path);
    while let Some((before, after)) = template.split_once('{') {
        let (name, after) = after.split_once('}')?;
        path = path.strip_prefix(before)?;
        let end = path.find(['/', ':']).unwrap_or(path.len());
        if end == 0 {
            return None;
        }
        parts.push((name, &path[..end]));
        (template, path) = (after, &path[end..]);
    }
    (template == path).then_some(parts)
}

impl Route {
    /// Whether the command has no fields: its serde form is a string then.
    pub(super) fn is_unit(&self) -> bool {
        let is_passphrase = |member: &&str| member.ends_with("_passphrase");
        !self.path.contains('{') && self.members.iter().all(is_passphrase)
    }

    pub(super) fn reads(&self) -> bool {
        self.method == "GET"
    }
}

/// The table of the documents.
pub fn table() -> String {
    let mut table =
        "| route | members | role | while sealed | is for |\n|---|---|---|---|---|\n".to_owned();
    for Route { method, path, access, while_sealed, members, about, .. } in &ROUTES {
        let role = match access {
            Access::Anybody => "none",
            Access::Role(role) => role.as_str(),
            Access::SocketOnly => "operator, at the socket",
        };
        let members: Vec<String> = members
            .iter()
            .map(|member| {
                let mark = if SECRET.contains(member) { "*" } else { "" };
                format!("`{member}`{mark}")
            })
            .collect();
        let sealed = if *while_sealed { "yes" } else { "" };
        let members = members.join(", ");
        writeln!(table, "| `{method} {path}` | {members} | {role} | {sealed} | {about} |")
            .expect("writing to a string does not fail");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(method, path) {
            Found::Route(route, parts) => {
                let parts = parts.iter().map(|(name, value)| format!("{name}={value}"));
                Some((route.command, parts.collect()))
            }
            Found::OtherMethod | Found::Nothing => None,
        }
    }

    #[test]
    fn a_path_leads_to_its_route_and_to_no_other() {
        let of = |command, parts: &[&str]| {
            Some((command, parts.iter().map(|&it| it.to_owned()).collect::<Vec<_>>()))
        };
        assert_eq!(found("GET", "/api/v1/tenants"), of("tenant_list", &[]));
        assert_eq!(found("GET", "/api/v1/tenants/a1"), of("tenant_show", &["tenant=a1"]));
        let sealed = found("POST", "/api/v1/tenants/a1:seal");
        assert_eq!(sealed, of("tenant_seal", &["tenant=a1"]));
        let quota = found("PATCH", "/api/v1/tenants/a1/quota");
        assert_eq!(quota, of("quota_set", &["tenant=a1"]));
        for path in [
            "",
            "/",
            "/api/v1",
            "/api/v1/",
            "/api/v1/tenants/",
            "/api/v1/tenants//quota",
            "/api/v2/tenants",
            "/api/v1/tenants/a1/",
            "/api/v1/tenants/a1:",
            "//api/v1/status",
            "/api/v1/Status",
            "/api/v1/tenants/a1/b1",
            "/api/v1/slots/:remove",
        ] {
            assert_eq!(found("GET", path), None, "{path}");
            assert_eq!(found("POST", path), None, "{path}");
        }
        assert!(matches!(find("PUT", "/api/v1/tenants"), Found::OtherMethod));
        assert!(matches!(find("get", "/api/v1/tenants"), Found::OtherMethod));
    }

    #[test]
    fn no_two_routes_are_the_same_and_each_is_its_own_commands() {
        for (at, route) in ROUTES.iter().enumerate() {
            for other in &ROUTES[at + 1..] {
                assert!((route.method, route.path) != (other.method, other.path), "{route:?}");
                assert!(route.command != other.command, "{route:?}");
            }
            assert!(!route.reads() || !matches!(route.access, Access::SocketOnly));
        }
    }
}
