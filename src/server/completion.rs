//! Completion of the names in resource templates.

use std::collections::BTreeSet;

use rmcp::model::{CompletionInfo, ResourceTemplate};

use super::{Caller, Error, Failure, Instances, Retry, TenantContext};
use crate::database::{Catalogue, RelationKind};
use crate::tenant::Permission;

/// A form of URI with names left open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Template {
    Relation(RelationKind),
    RelationInSchema(RelationKind),
    Service,
}

impl Template {
    const ALL: [Self; 5] = [
        Self::Relation(RelationKind::Table),
        Self::Relation(RelationKind::View),
        Self::RelationInSchema(RelationKind::Table),
        Self::RelationInSchema(RelationKind::View),
        Self::Service,
    ];

    /// What follows the tenant, the name, the description.
    fn texts(self) -> [&'static str; 3] {
        match self {
            Self::Relation(RelationKind::Table) => {
                ["database/table/{name}", "table", "A table: its columns, keys and a few rows."]
            }
            Self::Relation(RelationKind::View) => {
                ["database/view/{name}", "view", "A view: its columns and a few rows."]
            }
            Self::RelationInSchema(RelationKind::Table) => [
                "database/schema/{schema}/table/{name}",
                "table in schema",
                "A table outside the tenant's own schema.",
            ],
            Self::RelationInSchema(RelationKind::View) => [
                "database/schema/{schema}/view/{name}",
                "view in schema",
                "A view outside the tenant's own schema.",
            ],
            Self::Service => {
                ["api/{provider}", "api", "Whether a key of an outside service is set."]
            }
        }
    }
}

/// What a client wants completed.
#[derive(Debug)]
pub(super) struct Completing {
    /// The template's text.
    pub(super) template: String,
    /// Which of its names.
    pub(super) argument: String,
    /// What there is of it so far.
    pub(super) value: String,
    /// The schema, where that is known already.
    pub(super) schema: Option<String>,
}

impl TenantContext {
    /// The templates of this tenant's resources.
    pub(super) fn templates(&self) -> Vec<ResourceTemplate> {
        let templates = Template::ALL.iter().map(|template| {
            let [_, name, description] = template.texts();
            ResourceTemplate::new(self.template_text(*template), name)
                .with_description(description)
                .with_mime_type("application/json")
        });
        templates.collect()
    }

    fn template_text(&self, template: Template) -> String {
        format!("mcp://{}/{}", self.tenant(), template.texts()[0])
    }

    /// `completion/complete`: what begins with what is there, then what contains it, each in name
    /// order and whatever the case of ASCII letters.
    pub(super) async fn complete(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        completing: Result<Completing, Error>,
    ) -> Result<CompletionInfo, Failure> {
        let mut call = self.begin(caller, "completion/complete", Permission::List);
        let result = async {
            let completing = completing?;
            let known =
                |template: &&Template| self.template_text(**template) == completing.template;
            let Some(template) = Template::ALL.iter().find(known) else {
                // Another tenant's is refused as its URIs are.
                let tenant = completing.template.split('/').nth(2).unwrap_or_default();
                call.admit_uri(&format!("mcp://{tenant}/database"))?;
                return Err(Error::Argument(
                    "ref.uri must be one of those that resources/templates/list gives".to_owned(),
                ));
            };
            call.check_permission()?;
            let permit = call.acquire_permit()?;
            let candidates = if *template == Template::Service {
                let providers = self.api_keys.iter().map(|key| key.provider.clone());
                (completing.argument == "provider").then(|| providers.collect())
            } else {
                let mut retry = Retry::default();
                let catalogue = loop {
                    let access = &self.config.access;
                    let found =
                        self.lease(instances, &permit).await?.session.catalogue(access).await;
                    let found = found.map_err(Error::from);
                    if !retry.is_due(&found) {
                        break found?;
                    }
                };
                self.names(&catalogue, *template, &completing)
            };
            let candidates = candidates.ok_or_else(|| {
                Error::Argument("argument.name must be a name that stands in ref.uri".to_owned())
            })?;
            matching(candidates, &completing.value)
        };
        let result = result.await;
        call.finish(result, |found| Some(found.values.len() as u64)).await
    }

    /// What could stand for the argument; `None` when the template has no such one.
    fn names(
        &self,
        catalogue: &Catalogue,
        template: Template,
        completing: &Completing,
    ) -> Option<BTreeSet<String>> {
        let (kind, has_schema) = match template {
            Template::Relation(kind) => (kind, false),
            Template::RelationInSchema(kind) => (kind, true),
            Template::Service => return None,
        };
        let of_kind = catalogue.relations().iter().filter(|listed| listed.kind == kind);
        let names = of_kind.filter(|listed| self.has_uri(&listed.resource()));
        let names = names.map(|listed| &listed.name);
        match completing.argument.as_str() {
            "name" if has_schema => {
                let wanted = completing.schema.as_deref();
                let names = names.filter(|name| match name.schema.as_deref() {
                    Some(schema) => wanted.is_none_or(|wanted| wanted == schema),
                    None => false,
                });
                Some(names.map(|name| name.name.clone()).collect())
            }
            "name" => {
                let own = names.filter(|name| name.schema.is_none());
                Some(own.map(|name| name.name.clone()).collect())
            }
            "schema" if has_schema => Some(names.filter_map(|name| name.schema.clone()).collect()),
            _ => None,
        }
    }
}

/// The first of `candidates` that match `value`, and how many do.
fn matching(candidates: BTreeSet<String>, value: &str) -> Result<CompletionInfo, Error> {
    let value = value.to_ascii_lowercase();
    let place = |candidate: &str| candidate.to_ascii_lowercase().find(&value);
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for candidate in candidates {
        match place(&candidate) {
            Some(0) => first.push(candidate),
            Some(_) => others.push(candidate),
            None => {}
        }
    }
    first.append(&mut others);
    let total = first.len();
    first.truncate(CompletionInfo::MAX_VALUES);
    let has_more = total > first.len();
    // The count is of names in memory, and the list is as long as it may be.
    CompletionInfo::with_pagination(first, u32::try_from(total).ok(), has_more)
        .map_err(Error::Argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(candidates: &[&str], value: &str) -> (Vec<String>, Option<u32>, Option<bool>) {
        let candidates = candidates.iter().map(|name| (*name).to_owned()).collect();
        let found = matching(candidates, value).unwrap();
        (found.values, found.total, found.has_more)
    }

    #[test]
    fn what_begins_with_the_text_comes_before_what_contains_it() {
        let names = ["Orders", "customers", "old_orders", "orders_2", "zoo"];
        let (found, total, has_more) = complete(&names, "ORD");
        assert_eq!(found, ["Orders", "orders_2", "old_orders"]);
        assert_eq!((total, has_more), (Some(3), Some(false)));
        assert_eq!(complete(&names, "").0.len(), 5);
        assert_eq!(complete(&names, "%").0, [""; 0]);
        assert_eq!(complete(&["50%", "50_"], "50_").0, ["50_"]);
    }

    #[test]
    fn a_hundred_are_given_and_the_others_counted() {
        let names: Vec<String> = (0..250).map(|number| format!("t{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (found, total, has_more) = complete(&names, "t");
        assert_eq!((found.len(), total, has_more), (100, Some(250), Some(true)));
        assert_eq!(found[99], "t099");
    }
}
