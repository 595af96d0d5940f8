//! What a tenant has, in pages.
//!
//! ```text
//! database | tables and views by name | outside services by name      one order over all
//!               ^ cursor: the URI that the page before ended with
//! ```
//!
//! A page is what comes after a place in that order, whether or not what stood there is still there:
//! a table that is dropped meanwhile does not end a listing, and none is listed twice. Only what is
//! on the page is described.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::tools::{ColumnInfo, LIST, ListArguments};
use super::{Caller, Error, Failure, Instances, Retry, ScopedServer, TenantContext};
use crate::database::{Catalogue, Listed, Relation, RelationKind};
use crate::tenant::{Permission, RelationName, Resource, ResourceUri, ScopedUri};

/// Resources on one page.
const PAGE: usize = 100;

/// One page of resources.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ListAnswer {
    /// In a stable order: the database, its tables and views by name, then outside services.
    pub resources: Vec<ResourceInfo>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One resource.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ResourceInfo {
    /// For `query_tenant_data` and `resources/read`.
    pub uri: String,
    /// `database`, `table`, `view` or `api`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The last part of the URI, decoded.
    pub name: String,
    /// Of a table or view, its comment in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of a table or view; denied columns are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnInfo>>,
    /// Of a table, if the engine has counted and row-level security does not apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_rows: Option<u64>,
}

/// Which resources are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    All,
    Api,
    Database,
    Table,
    View,
}

impl Kind {
    fn parse(text: Option<&str>) -> Result<Self, Error> {
        match text {
            None => Ok(Self::All),
            Some("api") => Ok(Self::Api),
            Some("database") => Ok(Self::Database),
            Some("table") => Ok(Self::Table),
            Some("view") => Ok(Self::View),
            Some(_) => {
                let message = "resource_type must be one of database, table, view, api";
                Err(Error::Argument(message.to_owned()))
            }
        }
    }

    fn has_database(self) -> bool {
        matches!(self, Self::All | Self::Database)
    }

    fn has_relations(self) -> bool {
        self != Self::Api
    }

    fn includes(self, kind: RelationKind) -> bool {
        match self {
            Self::All | Self::Database => true,
            Self::Table => kind == RelationKind::Table,
            Self::View => kind == RelationKind::View,
            Self::Api => false,
        }
    }

    fn has_services(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }
}

impl TenantContext {
    /// The tool `list_tenant_resources`, and `resources/list` as `action`.
    pub(super) async fn list(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        action: &'static str,
        arguments: Result<ListArguments, Error>,
    ) -> Result<ListAnswer, Failure> {
        let mut call = self.begin(caller, action, Permission::List);
        let result = async {
            let arguments = arguments?;
            call.check_permission()?;
            let kind = Kind::parse(arguments.resource_type.as_deref())?;
            let after = match &arguments.cursor {
                // A cursor is the URI that the page before ended with, so it is scoped like one.
                Some(cursor) => Some(call.admit_uri(&decode_cursor(cursor)?)?),
                None => None,
            };
            let after = after.as_ref().map(ScopedUri::resource);
            let permit = call.acquire_permit()?;
            let mut retry = Retry::default();
            loop {
                let answer =
                    self.page(&mut *self.lease(instances, &permit).await?, kind, after).await;
                if !retry.is_due(&answer) {
                    break answer;
                }
            }
        };
        let result = result.await;
        call.finish(result, |answer| Some(answer.resources.len() as u64)).await
    }

    /// Every page of `list_tenant_resources` at once.
    pub(super) async fn list_all(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        resource_type: Option<&str>,
    ) -> Result<Vec<ResourceInfo>, Failure> {
        let call = self.begin(caller, LIST, Permission::List);
        let result = async {
            call.check_permission()?;
            let kind = Kind::parse(resource_type)?;
            let permit = call.acquire_permit()?;
            let mut resources = Vec::new();
            let mut next = Next::Page(None);
            let mut retry = Retry::default();
            while let Next::Page(after) = &next {
                let mut server = self.lease(instances, &permit).await?;
                let answer = self.described(&mut server, kind, after.as_ref()).await;
                if !retry.is_due(&answer) {
                    let page = answer?;
                    resources.extend(page.0);
                    next = page.1;
                }
            }
            Ok(resources)
        };
        let result = result.await;
        call.finish(result, |resources| Some(resources.len() as u64)).await
    }

    /// The page of `kind` that follows `after`.
    pub(super) async fn page(
        &self,
        server: &mut ScopedServer,
        kind: Kind,
        after: Option<&Resource>,
    ) -> Result<ListAnswer, Error> {
        let (resources, next) = self.described(server, kind, after).await?;
        let next_cursor = match next {
            Next::Page(Some(last)) => {
                let uri = ResourceUri::of(self.tenant(), &last).to_string();
                Some(URL_SAFE_NO_PAD.encode(uri))
            }
            Next::Page(None) | Next::Nothing => None,
        };
        Ok(ListAnswer { resources, next_cursor })
    }

    async fn described(
        &self,
        server: &mut ScopedServer,
        kind: Kind,
        after: Option<&Resource>,
    ) -> Result<(Vec<ResourceInfo>, Next), Error> {
        let access = &self.config.access;
        let catalogue = if kind.has_relations() && !matches!(after, Some(Resource::Api { .. })) {
            Some(server.session.catalogue(access).await?)
        } else {
            None
        };
        let mut page = self.following(catalogue.as_deref(), kind, after);
        let next = if page.len() > PAGE {
            page.truncate(PAGE);
            Next::Page(page.last().cloned())
        } else {
            Next::Nothing
        };
        let names: Vec<RelationName> = page.iter().filter_map(relation_of).cloned().collect();
        let mut relations = if names.is_empty() {
            Vec::new()
        } else {
            server.session.describe(access, &names).await?
        }
        .into_iter()
        .peekable();
        let mut resources = Vec::with_capacity(page.len());
        for resource in &page {
            match resource {
                Resource::Api { provider } => resources.push(self.service_info(provider)),
                Resource::Database => resources.push(self.database_info()),
                // Both come in the same order; one that is gone by now is left out.
                Resource::Table(name) | Resource::View(name) => {
                    if let Some(relation) = relations.next_if(|relation| relation.name == *name) {
                        resources.push(self.relation_info(relation));
                    }
                }
            }
        }
        Ok((resources, next))
    }

    /// The resources that come after `after`: one more than a page has, if there are so many.
    fn following(
        &self,
        catalogue: Option<&Catalogue>,
        kind: Kind,
        after: Option<&Resource>,
    ) -> Vec<Resource> {
        let database = (after.is_none() && kind.has_database()).then_some(Resource::Database);
        let relations = match (catalogue, after) {
            (None, _) | (_, Some(Resource::Api { .. })) => &[],
            (Some(all), None | Some(Resource::Database)) => all.relations(),
            (Some(all), Some(Resource::Table(last) | Resource::View(last))) => all.after(last),
        };
        let relations = relations.iter().filter(|listed| kind.includes(listed.kind));
        let relations = relations.map(Listed::resource);
        let mut providers: Vec<&str> = if kind.has_services() {
            self.api_keys.iter().map(|key| key.provider.as_str()).collect()
        } else {
            Vec::new()
        };
        providers.sort_unstable();
        if let Some(Resource::Api { provider }) = after {
            providers.retain(|it| it > &provider.as_str());
        }
        let services = providers.into_iter().map(|it| Resource::Api { provider: it.to_owned() });
        database
            .into_iter()
            .chain(relations)
            .chain(services)
            .filter(|resource| self.has_uri(resource))
            .take(PAGE + 1)
            .collect()
    }

    /// Whether `resource` can be named: not every name that a database can have is one that a URI can
    /// have. What cannot is read under the URI of the database only.
    pub(super) fn has_uri(&self, resource: &Resource) -> bool {
        ResourceUri::of(self.tenant(), resource).is_well_formed()
    }

    fn database_info(&self) -> ResourceInfo {
        ResourceInfo {
            uri: ResourceUri::of(self.tenant(), &Resource::Database).to_string(),
            kind: "database",
            name: "database".to_owned(),
            description: Some(format!("{} database", self.config.connection.engine())),
            columns: None,
            estimated_rows: None,
        }
    }

    fn relation_info(&self, relation: Relation) -> ResourceInfo {
        let resource = relation.kind.resource(relation.name.clone());
        let columns = relation.columns.into_iter();
        let columns =
            columns.map(|column| ColumnInfo { name: column.name, type_name: column.type_name });
        ResourceInfo {
            uri: ResourceUri::of(self.tenant(), &resource).to_string(),
            kind: relation.kind.as_str(),
            name: relation.name.to_string(),
            description: relation.description,
            columns: Some(columns.collect()),
            estimated_rows: relation.estimated_rows,
        }
    }

    fn service_info(&self, provider: &str) -> ResourceInfo {
        let resource = Resource::Api { provider: provider.to_owned() };
        ResourceInfo {
            uri: ResourceUri::of(self.tenant(), &resource).to_string(),
            kind: "api",
            name: provider.to_owned(),
            description: Some("a key is set".to_owned()),
            columns: None,
            estimated_rows: None,
        }
    }
}

/// What there is beyond a page.
enum Next {
    /// Another page, after this place; from the beginning without one.
    Page(Option<Resource>),
    Nothing,
}

fn relation_of(resource: &Resource) -> Option<&RelationName> {
    match resource {
        Resource::Table(name) | Resource::View(name) => Some(name),
        Resource::Api { .. } | Resource::Database => None,
    }
}

pub(super) fn decode_cursor(cursor: &str) -> Result<String, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Error::Argument("cursor is not one that was given out".to_owned()))
}
