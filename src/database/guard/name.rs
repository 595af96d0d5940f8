//! How names are read, and which relations may be.

use std::ops::ControlFlow;

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Query, Visit, Visitor};

use super::{Dialect, Refusal, shown};
use crate::tenant::{Access, ColumnName, RelationName, Resource};

/// Reads names as the engine does.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) dialect: Dialect,
    default_schema: String,
}

/// Longest identifier of `PostgreSQL`, in bytes; it cuts longer ones, and would then look up
/// another name than was checked.
const MAX_IDENTIFIER_BYTES: usize = 63;

impl Names {
    pub(super) fn new(dialect: Dialect, default_schema: &str) -> Self {
        let default_schema = match dialect {
            Dialect::Postgres => default_schema.to_owned(),
            Dialect::Sqlite => default_schema.to_ascii_lowercase(),
        };
        Self { dialect, default_schema }
    }

    /// The name that the engine looks up for `ident`.
    pub(super) fn folded(&self, ident: &Ident) -> String {
        match (self.dialect, ident.quote_style) {
            (Dialect::Postgres, Some(_)) => ident.value.clone(),
            (Dialect::Postgres, None) | (Dialect::Sqlite, _) => ident.value.to_ascii_lowercase(),
        }
    }

    /// Whether `ident` is the keyword that `PostgreSQL` takes for the value of a column.
    pub(super) fn is_default(&self, ident: &Ident) -> bool {
        self.dialect == Dialect::Postgres
            && ident.quote_style.is_none()
            && ident.value.eq_ignore_ascii_case("default")
    }

    /// The parts of a name, folded.
    pub(super) fn parts(&self, name: &ObjectName) -> Result<Vec<String>, Refusal> {
        name.0
            .iter()
            .map(|part| match part {
                ObjectNamePart::Identifier(ident) => Ok(self.folded(ident)),
                ObjectNamePart::Function(_) => {
                    Err(Refusal::new("relation", "a name has only identifiers"))
                }
            })
            .collect()
    }

    /// The relation that `name` means, unless a common table expression hides it.
    pub(super) fn relation(&self, name: &ObjectName) -> Result<RelationName, Refusal> {
        let mut parts = self.parts(name)?;
        let relation = match (parts.pop(), parts.pop(), parts.is_empty()) {
            (Some(name), schema, true) => RelationName { schema, name },
            _ => return Err(Refusal::new("relation", "a relation is named table or schema.table")),
        };
        let relation = self.canonical(&relation);
        if self.is_system(&relation) {
            return Err(Refusal::new("relation", "system catalogues may not be read"));
        }
        Ok(relation)
    }

    /// A name of the configuration or a URI, as this module compares them.
    pub(super) fn canonical(&self, relation: &RelationName) -> RelationName {
        let folded = |text: &str| match self.dialect {
            Dialect::Postgres => text.to_owned(),
            Dialect::Sqlite => text.to_ascii_lowercase(),
        };
        let schema = relation.schema.as_deref().map(folded);
        RelationName {
            schema: schema.filter(|schema| *schema != self.default_schema),
            name: folded(&relation.name),
        }
    }

    /// Whether `denied` is a column of `relation`, and its name as this module compares names.
    pub(super) fn denied_column(
        &self,
        denied: &ColumnName,
        relation: &RelationName,
    ) -> Option<String> {
        (self.canonical(&denied.relation) == *relation).then(|| match self.dialect {
            Dialect::Postgres => denied.column.clone(),
            Dialect::Sqlite => denied.column.to_ascii_lowercase(),
        })
    }

    /// Refuses a relation outside `resource` or `access`.
    pub(super) fn check_access(
        &self,
        relation: &RelationName,
        resource: &Resource,
        access: &Access,
    ) -> Result<(), Refusal> {
        match resource {
            Resource::Api { .. } => {
                return Err(Refusal::new("relation", "this resource is not a database"));
            }
            Resource::Database => {}
            Resource::Table(only) | Resource::View(only) => {
                if self.canonical(only) != *relation {
                    return Err(Refusal::new(
                        "relation",
                        format!(
                            "under this URI only {} may be used, not {}",
                            shown(&only.to_string()),
                            shown(&relation.to_string())
                        ),
                    ));
                }
            }
        }
        let allowed = match &access.tables {
            Some(tables) => tables.iter().any(|table| self.canonical(table) == *relation),
            None => relation.schema.is_none(),
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::new(
                "relation",
                format!(
                    "{} is not a relation that may be used; list_tenant_resources shows those \
                     that may",
                    shown(&relation.to_string())
                ),
            ))
        }
    }

    fn is_system(&self, relation: &RelationName) -> bool {
        let schema = relation.schema.as_deref().unwrap_or(&self.default_schema);
        match self.dialect {
            Dialect::Postgres => {
                schema == "information_schema"
                    || schema.starts_with("pg_")
                    || relation.name.starts_with("pg_")
            }
            Dialect::Sqlite => {
                schema != "main"
                    || relation.name.starts_with("sqlite_")
                    || relation.name.starts_with("pragma_")
            }
        }
    }
}

/// Refuses identifiers that the engine could read in another way than the parser did.
pub(super) fn check_identifiers(query: &Query, dialect: Dialect) -> Result<(), Refusal> {
    struct Identifiers(Dialect);
    impl Visitor for Identifiers {
        type Break = Refusal;
        fn pre_visit_ident(&mut self, ident: &Ident) -> ControlFlow<Refusal> {
            match check_identifier(ident, self.0) {
                Ok(()) => ControlFlow::Continue(()),
                Err(refusal) => ControlFlow::Break(refusal),
            }
        }
    }
    match query.visit(&mut Identifiers(dialect)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

fn check_identifier(ident: &Ident, dialect: Dialect) -> Result<(), Refusal> {
    let name = &ident.value;
    let refused =
        |message: &str| Err(Refusal::new("identifier", format!("{message}: {}", shown(name))));
    match (dialect, ident.quote_style) {
        (_, None) => {
            let mut characters = name.chars();
            let first = characters.next().is_some_and(|c| c == '_' || c.is_alphabetic());
            if !first || !characters.all(|c| matches!(c, '_' | '$') || c.is_alphanumeric()) {
                return refused("a name that is not of letters, digits and _ is written in quotes");
            }
        }
        (_, Some('"')) | (Dialect::Sqlite, Some('`' | '[')) => {
            if name.is_empty() || name.chars().any(char::is_control) {
                return refused("a name is not empty and has no control characters");
            }
        }
        _ => return refused("names are quoted with \""),
    }
    if dialect == Dialect::Postgres && name.len() > MAX_IDENTIFIER_BYTES {
        return refused("a name has at most 63 bytes");
    }
    Ok(())
}
