//! Listing and reading over a database that is made up.

mod cancellation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex as Lock;

use proptest::prelude::*;

use super::listing::Kind;
use super::*;
use crate::audit::{self, Decision, Filter};
use crate::clock::{Clock, SystemClock};
use crate::database::double::{Answers, Double};
use crate::database::{
    Catalogue, Error as DatabaseError, Listed, PlanNode, QueryResult, Relation, RelationKind,
};
use crate::error::ErrorCode;
use crate::quota::Limiter;
use crate::tenant::{
    Access, AccessMode, IdRule, Limits, Permission, Quotas, RelationName, Resource, ResourceUri,
};

/// What is there, and how many questions fail first because the session has ended.
#[derive(Debug, Default)]
struct Fake {
    relations: Arc<Lock<Vec<Listed>>>,
    stale: usize,
}

impl Fake {
    fn answer<T>(&mut self, answer: T) -> Result<T, DatabaseError> {
        let is_stale = self.stale > 0;
        self.stale = self.stale.saturating_sub(1);
        if is_stale { Err(Unavailable::Stale.into()) } else { Ok(answer) }
    }

    fn present(&self) -> Catalogue {
        Catalogue::new(self.relations.lock().unwrap().clone())
    }
}

impl Answers for Fake {
    fn query(&mut self) -> Result<QueryResult, DatabaseError> {
        self.answer(QueryResult::default())
    }

    fn catalogue(&mut self) -> Result<Catalogue, DatabaseError> {
        let catalogue = self.present();
        self.answer(catalogue)
    }

    fn describe(&mut self, names: &[RelationName]) -> Result<Vec<Relation>, DatabaseError> {
        let catalogue = self.present();
        let found = names.iter().filter_map(|name| catalogue.find(name));
        let found = found.map(|it| Relation::new(it.name.clone(), it.kind)).collect();
        self.answer(found)
    }

    fn explain(&mut self) -> Result<PlanNode, DatabaseError> {
        self.answer(PlanNode::default())
    }
}

/// A server over a session that is made up, and what it records.
pub(super) struct Bench {
    pub(super) server: ScopedServer,
    pub(super) log: Log,
    pub(super) directory: tempfile::TempDir,
}

impl Bench {
    /// Of a tenant with two services, and otherwise as `change` has it. The answers may know the log.
    pub(super) fn new<A: Answers + 'static>(
        answers: impl FnOnce(&Log) -> A,
        change: impl FnOnce(&mut TenantConfig),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = Log::open(directory.path(), Arc::clone(&clock)).unwrap();
        let mut config = TenantConfig {
            id: TenantId::parse("tenant001", IdRule::Alphanumeric).unwrap(),
            connection: Connection::Sqlite { path: "none.db".to_owned() },
            access: Access::default(),
            limits: Limits::default(),
            quotas: Quotas::default(),
            features: BTreeMap::new(),
        };
        change(&mut config);
        let keys = ["stripe", "openai"].map(|provider| ApiKey {
            provider: provider.to_owned(),
            set_at: Timestamp::UNIX_EPOCH,
            fingerprint: "00".to_owned(),
        });
        let meter = Limiter::new(clock).meter(&config.id, Timestamp::UNIX_EPOCH);
        let context = TenantContext::new(config, keys.into(), meter, log.clone());
        let session = Box::new(Double(answers(&log)));
        let server = create_tenant_scoped_server(Arc::new(context), session);
        Self { server, log, directory }
    }

    /// The verdicts that were recorded.
    pub(super) fn decisions(&self) -> Vec<Decision> {
        let entries = audit::read(self.directory.path(), Filter::default()).unwrap();
        entries.map(|entry| entry.unwrap().decision).collect()
    }
}

fn bench(answers: Fake) -> Bench {
    Bench::new(
        |_| answers,
        |config| {
            config.features.insert("advanced_analytics".to_owned(), true);
        },
    )
}

fn listed(schema: Option<&str>, name: &str, is_view: bool) -> Listed {
    let name = RelationName { schema: schema.map(str::to_owned), name: name.to_owned() };
    Listed { name, kind: if is_view { RelationKind::View } else { RelationKind::Table } }
}

/// All pages, with `between` after each.
async fn pages(server: &mut ScopedServer, mut between: impl FnMut()) -> Vec<String> {
    let context = Arc::clone(&server.context);
    let mut after: Option<Resource> = None;
    let mut uris = Vec::new();
    loop {
        let page = context.page(server, Kind::All, after.as_ref()).await.unwrap();
        assert!(page.resources.len() <= 100);
        uris.extend(page.resources.into_iter().map(|resource| resource.uri));
        let Some(cursor) = page.next_cursor else { return uris };
        let uri = listing::decode_cursor(&cursor).unwrap();
        let uri = ResourceUri::parse(&uri).unwrap();
        after = Some(context.scope.admit(&uri).unwrap().resource().clone());
        between();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn pages_have_each_resource_once_in_order_while_others_come_and_go(
        stay in proptest::collection::btree_set(
            (proptest::option::of("[ab]"), "[a-c\"%_ é/]{1,4}", any::<bool>()), 0..400),
        go in proptest::collection::btree_set("[a-c]{5}", 0..150),
    ) {
        let mut kept: Vec<Listed> = stay
            .iter()
            .map(|(schema, name, is_view)| listed(schema.as_deref(), name, *is_view))
            .collect();
        // One kind for each name, as in a database.
        kept = Catalogue::new(kept).relations().to_vec();
        let mut going: Vec<Listed> = go.iter().map(|name| listed(None, name, false)).collect();
        let all = kept.iter().chain(&going).cloned().collect();
        let relations = Arc::new(Lock::new(all));
        let mut bench = bench(Fake { relations: Arc::clone(&relations), stale: 0 });
        let context = Arc::clone(&bench.server.context);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let uris = runtime.block_on(pages(&mut bench.server, || {
            let gone = going.len().min(40);
            let gone: BTreeSet<Listed> = going.drain(..gone).collect();
            relations.lock().unwrap().retain(|listed| !gone.contains(listed));
        }));
        let seen: BTreeSet<&String> = uris.iter().collect();
        prop_assert_eq!(seen.len(), uris.len());
        for it in kept.iter().filter(|it| context.has_uri(&it.resource())) {
            let uri = ResourceUri::of(context.tenant(), &it.resource()).to_string();
            prop_assert!(seen.contains(&uri), "{} is missing", uri);
        }
        prop_assert!(uris.first().is_some_and(|uri| uri.ends_with("/database")));
        prop_assert!(uris[uris.len() - 2].ends_with("/api/openai"));
        prop_assert!(uris[uris.len() - 1].ends_with("/api/stripe"));
    }
}

#[tokio::test]
async fn every_use_of_a_session_is_tried_once_more_when_it_had_ended() {
    let table = "mcp://tenant001/database/table/t";
    for (stale, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(ErrorCode::DatabaseUnavailable))] {
        let new = || {
            let relations = Arc::new(Lock::new(vec![listed(None, "t", false)]));
            bench(Fake { relations, stale })
        };
        let code = |failure: Failure| failure.code();
        let mut bench = new();
        let server = &mut bench.server;
        let answer = server.list_tenant_resources(None).await;
        assert_eq!(answer.map(drop).map_err(code), expected);

        let mut bench = new();
        let server = &mut bench.server;
        let (context, caller) = (Arc::clone(&server.context), server.caller.clone());
        let answer = context.read(&mut &mut *server, &caller, "mcp://tenant001/database").await;
        assert_eq!(answer.map(drop).map_err(code), expected);

        let mut bench = new();
        let server = &mut bench.server;
        let (context, caller) = (Arc::clone(&server.context), server.caller.clone());
        let answer = context.read(&mut &mut *server, &caller, table).await;
        assert_eq!(answer.map(drop).map_err(code), expected);

        let mut bench = new();
        let server = &mut bench.server;
        let (context, caller) = (Arc::clone(&server.context), server.caller.clone());
        let arguments = tools::arguments(
            serde_json::json!({ "resource_uri": table, "query": "SELECT 1" }).as_object().cloned(),
        );
        let answer = context.explain(&mut &mut *server, &caller, arguments).await;
        assert_eq!(answer.map(drop).map_err(code), expected);
    }
}

fn named(name: &str) -> RelationName {
    RelationName { schema: None, name: name.to_owned() }
}

impl TenantContext {
    /// The same tenant with other rules, and none of its services.
    fn changed(&self, change: impl FnOnce(&mut TenantConfig)) -> Self {
        let mut config = self.config.clone();
        change(&mut config);
        Self::new(config, Vec::new(), Arc::clone(&self.meter), self.log.clone())
    }
}

#[tokio::test]
async fn a_call_that_was_admitted_under_other_rules_does_not_run() {
    let uri = "mcp://tenant001/database/table/t";
    let changes: [(fn(&mut TenantConfig), _); 3] = [
        // Such as another password.
        (|_| {}, Ok(())),
        (|config| config.access.tables = Some(vec![named("u")]), Err(ErrorCode::Cancelled)),
        (|config| config.quotas.max_queries_per_hour = Some(0), Err(ErrorCode::Cancelled)),
    ];
    for (change, expected) in changes {
        let relations = Arc::new(Lock::new(vec![listed(None, "t", false)]));
        let mut bench = Bench::new(
            |_| Fake { relations, stale: 0 },
            |config| {
                config.features.insert("advanced_analytics".to_owned(), true);
                config.access.mode = AccessMode::ReadWrite;
            },
        );
        let admitting = Arc::clone(&bench.server.context);
        bench.server.context = Arc::new(admitting.changed(change));
        let mut caller = bench.server.caller.clone();
        caller.permissions =
            [Permission::List, Permission::Query, Permission::Write].into_iter().collect();
        let mut instances = &mut bench.server;
        let arguments = |value: serde_json::Value| value.as_object().cloned();
        let statement =
            || arguments(serde_json::json!({ "resource_uri": uri, "query": "SELECT 1" }));
        let change =
            serde_json::json!({ "resource_uri": uri, "statement": "DELETE FROM t WHERE true" });
        let listed = serde_json::json!({});
        let template = "mcp://tenant001/database/table/{name}".to_owned();
        let completing = completion::Completing {
            template,
            argument: "name".to_owned(),
            value: String::new(),
            schema: None,
        };
        let code = |failure: Failure| failure.code();
        let answers = [
            admitting.query(&mut instances, &caller, tools::arguments(statement())).await.map(drop),
            admitting
                .explain(&mut instances, &caller, tools::arguments(statement()))
                .await
                .map(drop),
            admitting
                .write(&mut instances, &caller, tools::arguments(arguments(change)))
                .await
                .map(drop),
            admitting
                .list(
                    &mut instances,
                    &caller,
                    "resources/list",
                    tools::arguments(arguments(listed)),
                )
                .await
                .map(drop),
            admitting.read(&mut instances, &caller, uri).await.map(drop),
            admitting.read(&mut instances, &caller, "mcp://tenant001/database").await.map(drop),
            admitting.complete(&mut instances, &caller, Ok(completing)).await.map(drop),
        ];
        assert_eq!(answers.map(|answer| answer.map_err(code)), [expected; 7]);
    }
}
