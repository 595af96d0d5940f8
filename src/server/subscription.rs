//! `subscriptions/listen`, and the stream of a session: a client is told when something is not what it was.
//!
//! ```text
//! the tenant's configuration changed --Stays--> tools, resources, each resource    at most once a second;
//! the database has other tables --Lookout-----> resources, the database            several changes are
//! a table has other columns, keys --Lookout---> that resource                      one word
//! ```
//!
//! It is told that there is something new, never what: it asks again, and is answered as anybody is. Rows
//! are not watched. A client that does not read is dropped. When the leave to stay is over (revoked,
//! expired, disabled, sealed, stopping), the subscription ends with its final result.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use rmcp::ErrorData;
use rmcp::model::{
    ResourceListChangedNotification, ResourceUpdatedNotification, ResourceUpdatedNotificationParam,
    ServerNotification, SubscriptionFilter, ToolListChangedNotification,
};
use rmcp::service::SubscriptionContext;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::content::kind_of;
use super::handler::McpHandler;
use super::lookout::{Known, Lookout, Looks, Seen, Wanted, settled};
use super::stay::{Kind, Mark, Stay, Stays, Who};
use super::{Error, Failure, Instances, McpSession, TenantContext};
use crate::error::ErrorCode;
use crate::tenant::{Permission, Resource};

/// What the audit log calls it, also for a session.
const LISTEN: &str = "subscriptions/listen";
/// How long a client may take to read one word.
const PATIENCE: Duration = Duration::from_secs(10);

/// Among whom a caller may subscribe.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made by the manager for one caller")]
pub struct Subscriptions {
    /// Everybody who stays.
    pub stays: Stays,
    /// The state of the tenant before its context was read.
    pub mark: Option<Mark>,
    /// How long the caller's credential lasts.
    pub lasts_for: Option<Duration>,
}

/// What can change here: not the prompts, of which there are none. What may not be subscribed to is refused
/// by [`run`].
pub(super) fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = requested.clone();
    accepted.prompts_list_changed = None;
    accepted
}

/// Serves one subscription until it ends.
pub(super) async fn run<I: Instances + Clone + Sync + 'static>(
    handler: &McpHandler<I>,
    context: &SubscriptionContext,
) -> Result<(), ErrorData> {
    let mut call = handler.context.begin(&handler.caller, LISTEN, Permission::List);
    let entered = async {
        call.check_permission()?;
        let (accepted, wanted) = (context.accepted(), Arc::<Wanted>::default());
        for uri in accepted.resource_subscriptions.iter().flatten() {
            handler.want(&mut call, uri, &wanted).await?;
        }
        let interest = Interest {
            tools: accepted.tools_list_changed == Some(true),
            resources: accepted.resources_list_changed == Some(true),
            wanted,
        };
        handler.subscribe(&call, interest, CancellationToken::new())
    };
    let entered = entered.await;
    let mut news = call.finish(entered, |_| None).await.map_err(Failure::into_rpc_error)?;
    loop {
        let told = tokio::select! {
            biased;
            () = context.cancelled() => return Ok(()),
            told = news.next() => told,
        };
        let Some(told) = told else { return Ok(()) };
        let telling = async {
            for notification in told {
                context.sink().send(notification).await?;
            }
            Ok::<_, rmcp::service::SubscriptionSendError>(())
        };
        if !matches!(tokio::time::timeout(PATIENCE, telling).await, Ok(Ok(()))) {
            // It is gone, or as good as gone.
            return Ok(());
        }
    }
}

impl<I: Instances + Clone + Sync + 'static> McpHandler<I> {
    /// What the client of `session` is told, until `ended` is cancelled or its leave to stay is over.
    ///
    /// # Errors
    ///
    /// As `subscriptions/listen`.
    pub async fn news(
        &self,
        session: &McpSession,
        ended: CancellationToken,
    ) -> Result<impl Stream<Item = ServerNotification> + Send + 'static, Failure> {
        let call = self.context.begin(&self.caller, LISTEN, Permission::List);
        let interest =
            Interest { tools: true, resources: true, wanted: Arc::clone(session.wanted()) };
        let entered = call.check_permission().and_then(|()| self.subscribe(&call, interest, ended));
        let news = call.finish(entered, |_| None).await?;
        let told = stream::unfold(news, async |mut news| {
            let told = news.next().await?;
            Some((stream::iter(told), news))
        });
        Ok(told.flatten())
    }

    /// `resources/subscribe` in `session`.
    pub(super) async fn add_resource(
        &self,
        session: &McpSession,
        uri: &str,
    ) -> Result<(), Failure> {
        let mut call = self.context.begin(&self.caller, "resources/subscribe", Permission::List);
        let added = self.want(&mut call, uri, session.wanted()).await;
        call.finish(added, |()| None).await
    }

    /// Adds the resource `uri` to what is `wanted`; a table or view is looked at, which is counted as a
    /// statement.
    pub(super) async fn want(
        &self,
        call: &mut Call<'_>,
        uri: &str,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let scoped = call.admit_uri(uri)?;
        call.check_permission()?;
        let known = match scoped.resource() {
            Resource::Api { provider } => {
                let mut keys = self.context.api_keys.iter();
                if !keys.any(|key| key.provider == *provider) {
                    return Err(Error::ResourceNotFound);
                }
                Known::Api
            }
            Resource::Database => Known::Database,
            relation @ (Resource::Table(name) | Resource::View(name)) => {
                let (mut instances, kind) = (self.instances.clone(), kind_of(relation));
                let permit = call.acquire_permit()?;
                let relation = self.context.relation(&mut instances, &permit, name, kind).await?;
                Known::Relation(relation.name.clone(), Some(settled(relation)))
            }
        };
        wanted.add(uri, known)
    }

    /// Lets the caller of `call` stay, until `ended` is cancelled or its leave is over.
    fn subscribe(
        &self,
        call: &Call<'_>,
        interest: Interest,
        ended: CancellationToken,
    ) -> Result<News<I>, Error> {
        let subscriptions =
            self.subscriptions.as_ref().ok_or(Error::Instance(ErrorCode::InternalError))?;
        let Subscriptions { stays, mark, lasts_for } = subscriptions;
        let tenant = self.context.tenant();
        let who = Who::new(tenant.clone(), call.caller());
        let stay = stays.enter(who, Kind::Subscription, *mark, *lasts_for, ended)?;
        let lookout = interest.is_in_database().then(|| stays.lookout(tenant));
        let looks = lookout.map(|lookout| (lookout.join(&interest.wanted), lookout));
        let last = looks.as_ref().and_then(|(looks, _)| looks.borrow().clone());
        let (context, instances) = (Some(Arc::clone(&self.context)), self.instances.clone());
        Ok(News { stay, context, instances, interest, looks, last })
    }
}

/// What a listener wants to know.
#[derive(Debug)]
struct Interest {
    tools: bool,
    resources: bool,
    wanted: Arc<Wanted>,
}

impl Interest {
    fn is_in_database(&self) -> bool {
        self.resources || !self.wanted.uris().is_empty()
    }

    fn notifications(
        &self,
        tools: bool,
        resources: bool,
        updated: Vec<String>,
    ) -> Vec<ServerNotification> {
        let tools = (tools && self.tools).then(|| ToolListChangedNotification::default().into());
        let resources = (resources && self.resources)
            .then(|| ResourceListChangedNotification::default().into());
        let updated = updated.into_iter().map(|uri| {
            let updated = ResourceUpdatedNotificationParam::new(uri);
            ResourceUpdatedNotification::new(updated).into()
        });
        tools.into_iter().chain(resources).chain(updated).collect()
    }
}

/// What one listener is told, for as long as it may stay.
#[derive(Debug)]
struct News<I> {
    stay: Stay,
    /// Nothing, since the tenant changed and until it was looked at.
    context: Option<Arc<TenantContext>>,
    instances: I,
    interest: Interest,
    looks: Option<(Looks, Arc<Lookout>)>,
    last: Option<Arc<Seen>>,
}

impl<I: Instances> News<I> {
    /// What changed since this was called last; `None` when the leave to stay is over.
    async fn next(&mut self) -> Option<Vec<ServerNotification>> {
        loop {
            let told = tokio::select! {
                biased;
                () = self.stay.ended().cancelled() => return None,
                () = self.stay.changed() => {
                    self.context = None;
                    self.interest.notifications(true, true, self.interest.wanted.uris())
                }
                seen = seen(&mut self.looks, &mut self.instances, &mut self.context) => {
                    self.compare(seen)
                }
            };
            if !told.is_empty() {
                return Some(told);
            }
        }
    }

    fn compare(&mut self, seen: Arc<Seen>) -> Vec<ServerNotification> {
        let has_other_relations =
            self.last.as_ref().is_some_and(|last| last.catalogue != seen.catalogue);
        let updated = self.interest.wanted.note(&seen, has_other_relations);
        self.last = Some(seen);
        self.interest.notifications(false, has_other_relations, updated)
    }
}

/// What is seen next; never comes to who does not look.
async fn seen<I: Instances>(
    looks: &mut Option<(Looks, Arc<Lookout>)>,
    instances: &mut I,
    context: &mut Option<Arc<TenantContext>>,
) -> Arc<Seen> {
    match looks {
        Some((looks, lookout)) => lookout.seen(looks, instances, context).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::{Mutex, OwnedMutexGuard};
    use tokio::time::Instant;

    use super::*;
    use crate::database::double::Answers;
    use crate::database::{Catalogue, Error as DatabaseError, Listed, Relation, RelationKind};
    use crate::server::tests::Bench;
    use crate::server::{Caller, ScopedServer};
    use crate::tenant::{RelationName, TenantConfig};

    /// Tables, and what is said of each.
    #[derive(Clone, Debug, Default)]
    struct Fake {
        tables: Arc<Lock<Vec<(&'static str, &'static str)>>>,
        looks: Arc<AtomicUsize>,
    }

    impl Fake {
        fn relations(&self) -> Vec<Relation> {
            let tables = self.tables.lock().unwrap();
            let relation = |&(name, description): &(&str, &str)| {
                let name = RelationName { schema: None, name: name.to_owned() };
                let relation = Relation::new(name, RelationKind::Table);
                Relation { description: Some(description.to_owned()), ..relation }
            };
            tables.iter().map(relation).collect()
        }
    }

    impl Answers for Fake {
        fn catalogue(&mut self) -> Result<Catalogue, DatabaseError> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            let listed = |it: Relation| Listed { name: it.name, kind: it.kind };
            Ok(Catalogue::new(self.relations().into_iter().map(listed).collect()))
        }

        fn describe(&mut self, names: &[RelationName]) -> Result<Vec<Relation>, DatabaseError> {
            let is_asked = |it: &Relation| names.contains(&it.name);
            Ok(self.relations().into_iter().filter(is_asked).collect())
        }
    }

    /// One instance, and how often it was leased.
    #[derive(Clone, Debug)]
    struct Leased(Arc<Mutex<ScopedServer>>, Arc<AtomicUsize>);

    impl Instances for Leased {
        type Instance<'a> = OwnedMutexGuard<ScopedServer>;

        async fn lease(&mut self) -> Result<OwnedMutexGuard<ScopedServer>, Error> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.lease().await
        }
    }

    type Handler = McpHandler<Leased>;

    fn handler(fake: &Fake) -> (Handler, tempfile::TempDir) {
        handler_of(fake, |_| {})
    }

    fn handler_of(
        fake: &Fake,
        change: impl FnOnce(&mut TenantConfig),
    ) -> (Handler, tempfile::TempDir) {
        let Bench { server, directory, .. } = Bench::new(|_| fake.clone(), change);
        let (context, caller) = (Arc::clone(&server.context), server.caller.clone());
        let stays = Stays::new(Arc::new(|_| Some([0; 24])));
        let subscriptions = Subscriptions { stays, mark: Some([0; 24]), lasts_for: None };
        let instances = Leased(Arc::new(Mutex::new(server)), Arc::default());
        let handler = McpHandler::new(context, instances, caller);
        (handler.with_subscriptions(subscriptions), directory)
    }

    async fn listen(
        handler: &Handler,
        credential: &str,
        wanted: &[&str],
    ) -> Result<News<Leased>, Error> {
        let actor = crate::audit::Actor::Token { id: credential.to_owned() };
        let permissions = crate::tenant::Permissions::READ;
        let cut = CancellationToken::new();
        let caller = Caller { actor, permissions, peer: None, request_id: None, cut };
        let mut call = handler.context.begin(&caller, "subscriptions/listen", Permission::List);
        let interest = Interest { tools: true, resources: true, wanted: Arc::default() };
        for uri in wanted {
            handler.want(&mut call, uri, &interest.wanted).await?;
        }
        handler.subscribe(&call, interest, CancellationToken::new())
    }

    /// What each is told next, if anything is new within six looks.
    async fn told(news: &mut [News<Leased>]) -> Vec<Vec<String>> {
        let next = news.iter_mut().map(async |news: &mut News<_>| {
            let told = tokio::time::timeout(Duration::from_secs(55), news.next()).await;
            let told = told.ok().flatten().unwrap_or_default();
            let words = told.into_iter().map(|it| {
                let it = serde_json::to_value(it).unwrap();
                let list = it["method"].as_str().unwrap().split('/').nth(1);
                it["params"]["uri"].as_str().or(list).unwrap().to_owned()
            });
            words.collect()
        });
        join_all(next).await
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_listen_are_told_by_one_look_also_when_who_looked_has_gone() {
        let fake = Fake::default();
        let (handler, _directory) = handler(&fake);
        let mut news = Vec::new();
        for _ in 0..8 {
            news.push(listen(&handler, "a", &[]).await.unwrap());
        }
        listen(&handler, "a", &[]).await.unwrap_err();
        let began = Instant::now();
        assert_eq!(told(&mut news).await, vec![Vec::<String>::new(); 8]);
        assert_eq!(fake.looks.load(Ordering::Relaxed), 6);
        drop(news.remove(0));
        fake.tables.lock().unwrap().push(("customers", ""));
        assert_eq!(told(&mut news).await, vec![["resources"]; 7]);
        assert_eq!(fake.looks.load(Ordering::Relaxed), 7);
        assert_eq!(began.elapsed(), Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_a_statement_and_there_are_as_many_as_may_run() {
        for (quota, looks) in [(0, 0), (2, 2), (100, 6)] {
            let fake = Fake::default();
            let (handler, _directory) =
                handler_of(&fake, |config| config.quotas.max_queries_per_hour = Some(quota));
            let mut news = [listen(&handler, "a", &[]).await.unwrap()];
            assert_eq!(told(&mut news).await, vec![Vec::<String>::new()]);
            assert_eq!(fake.looks.load(Ordering::Relaxed), looks);
            let usage = handler.context.meter.usage(&handler.context.config.quotas, "a");
            let used = usage.iter().find(|it| it.quota == "max_queries_per_hour").unwrap().used;
            assert_eq!(used, looks as u64);
            let leases = handler.instances.1.load(Ordering::Relaxed);
            assert_eq!(leases, looks, "a session is opened for nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_listens_when_no_statement_may_run_is_told_again_once_the_quota_is_raised() {
        let fake = Fake::default();
        let (mut handler, _directory) =
            handler_of(&fake, |config| config.quotas.max_concurrent_connections = Some(0));
        let mark = Arc::new(Lock::new([0; 24]));
        let now = Arc::clone(&mark);
        let stays = Stays::new(Arc::new(move |_| Some(*now.lock().unwrap())));
        handler.subscriptions.as_mut().unwrap().stays = stays.clone();
        let mut news = [listen(&handler, "a", &[]).await.unwrap()];
        assert_eq!(told(&mut news).await, vec![Vec::<String>::new()]);
        let leases = || handler.instances.1.load(Ordering::Relaxed);
        assert_eq!(leases(), 0);
        let change = async |to: u8, most| {
            let Bench { server, .. } = Bench::new(
                |_| fake.clone(),
                |config| config.quotas.max_concurrent_connections = most,
            );
            *handler.instances.0.lock().await = server;
            *mark.lock().unwrap() = [to; 24];
            stays.tell(handler.context.tenant());
        };
        change(1, Some(1)).await;
        assert_eq!(told(&mut news).await, [["tools", "resources"]]);
        assert_eq!(told(&mut news).await, vec![Vec::<String>::new()]);
        assert_eq!(fake.looks.load(Ordering::Relaxed), leases());
        fake.tables.lock().unwrap().push(("customers", ""));
        assert_eq!(told(&mut news).await, [["resources"]]);
        // Forbidden again, which one lease finds out.
        let before = leases();
        change(2, Some(0)).await;
        assert_eq!(told(&mut news).await, [["tools", "resources"]]);
        assert_eq!(told(&mut news).await, vec![Vec::<String>::new()]);
        assert_eq!(leases(), before + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_know_of_a_resource_is_told_when_it_is_another_and_nobody_else_is() {
        let fake = Fake::default();
        *fake.tables.lock().unwrap() = vec![("customers", "a"), ("orders", "a")];
        let (handler, _directory) = handler(&fake);
        let [customers, orders] =
            ["customers", "orders"].map(|name| format!("mcp://tenant001/database/table/{name}"));
        let database = "mcp://tenant001/database";
        let mut news = [
            listen(&handler, "a", &[&customers]).await.unwrap(),
            listen(&handler, "b", &[&orders, "mcp://tenant001/api/stripe"]).await.unwrap(),
            listen(&handler, "c", &[database]).await.unwrap(),
        ];
        let no_news = Vec::<String>::new();
        // Before anybody looked again.
        fake.tables.lock().unwrap()[0].1 = "b";
        assert_eq!(told(&mut news).await, [vec![customers.clone()], no_news.clone(), no_news]);
        fake.tables.lock().unwrap().pop();
        let resources = || "resources".to_owned();
        let gone = [
            vec![resources()],
            vec![resources(), orders.clone()],
            vec![resources(), database.to_owned()],
        ];
        assert_eq!(told(&mut news).await, gone);
        for (uri, code) in [
            (orders.as_str(), ErrorCode::ResourceNotFound),
            ("mcp://tenant001/api/nobody", ErrorCode::ResourceNotFound),
            ("mcp://tenant002/database", ErrorCode::Forbidden),
        ] {
            assert_eq!(listen(&handler, "d", &[uri]).await.unwrap_err().code(), code, "{uri}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_tenant_is_told_at_once_and_of_all() {
        let fake = Fake::default();
        let (mut handler, _directory) = handler(&fake);
        let mark = Arc::new(Lock::new([0; 24]));
        let now = Arc::clone(&mark);
        let stays = Stays::new(Arc::new(move |_| Some(*now.lock().unwrap())));
        handler.subscriptions.as_mut().unwrap().stays = stays.clone();
        let stripe = "mcp://tenant001/api/stripe";
        let mut news = [listen(&handler, "a", &[stripe]).await.unwrap()];
        *mark.lock().unwrap() = [1; 24];
        stays.tell(handler.context.tenant());
        let began = Instant::now();
        assert_eq!(told(&mut news).await, [["tools", "resources", stripe]]);
        assert_eq!(began.elapsed(), Duration::ZERO);
        stays.end_credential("a");
        assert!(news[0].next().await.is_none());
    }
}
