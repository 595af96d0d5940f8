//! The tool `explain_tenant_query`: how the database would run a statement.

use rmcp::model::Tool;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::AdmittedQuery;
use super::{
    Caller, Error, Failure, Instances, QueryArguments, Retry, ScopedServer, TenantContext, tools,
};
use crate::database::PlanNode;
use crate::tenant::Permission;

pub(super) const EXPLAIN: &str = "explain_tenant_query";

/// The tool as clients see it.
pub(super) fn tool() -> Tool {
    tools::tool(
        EXPLAIN,
        "Explain a query",
        "Shows how the database would run one read-only SQL statement, without running it: a tree of \
         steps, each with the relation it reads, what it expects and what it costs. The same \
         statements are allowed as in query_tenant_data. Of what lies below views and of relations \
         with row-level security only the steps are shown.",
        &json!({
            "resource_uri": { "type": "string", "description": "As for query_tenant_data." },
            "query": { "type": "string", "description": "One SELECT statement." },
            "params": {
                "type": "array", "items": {},
                "description": "Values for $1, $2, … (PostgreSQL) or ?1, ?2, … (SQLite).",
            },
        }),
        &["resource_uri", "query"],
        json!({
            "resource_uri": { "type": "string" },
            "plan": {
                "type": "object",
                "properties": {
                    "node": { "type": "string", "description": "What the step does." },
                    "relation": {
                        "type": "string", "description": "What it reads, as the statement names it.",
                    },
                    "index": { "type": "string" },
                    "condition": { "type": "string" },
                    "estimated_rows": { "type": "integer" },
                    "cost": {
                        "type": "number",
                        "description": "With all below it, in units of the database's own.",
                    },
                    "children": {
                        "type": "array", "items": { "type": "object" },
                        "description": "Where its rows come from; each as this one.",
                    },
                },
                "required": ["node"],
            },
        }),
        &["resource_uri", "plan"],
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainArguments {
    resource_uri: String,
    query: String,
    #[serde(default)]
    params: Vec<Value>,
}

/// The answer of `explain_tenant_query`.
#[derive(Debug, Serialize)]
pub(super) struct ExplainAnswer {
    resource_uri: String,
    plan: PlanContent,
}

/// A [`PlanNode`] as JSON.
#[derive(Debug, Serialize)]
struct PlanContent {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<PlanContent>,
}

impl From<PlanNode> for PlanContent {
    fn from(plan: PlanNode) -> Self {
        let PlanNode { node, relation, index, condition, estimated_rows, cost, children } = plan;
        let children = children.into_iter().map(Self::from).collect();
        Self { node, relation, index, condition, estimated_rows, cost, children }
    }
}

impl TenantContext {
    /// The tool `explain_tenant_query`. Admitted and counted as the statement would be.
    pub(super) async fn explain(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        arguments: Result<ExplainArguments, Error>,
    ) -> Result<ExplainAnswer, Failure> {
        let mut call = self.begin(caller, EXPLAIN, Permission::Query);
        let result = async {
            let ExplainArguments { resource_uri, query, params } = arguments?;
            let mut statement = QueryArguments::new(&resource_uri, &query, None);
            statement.params = params;
            let admitted = call.admit_query(statement)?;
            let mut retry = Retry::default();
            let plan = loop {
                let plan = self.lease(instances, admitted.permit()).await?.plan(&admitted).await;
                if !retry.is_due(&plan) {
                    break plan?;
                }
            };
            Ok(ExplainAnswer { resource_uri, plan: plan.into() })
        };
        let result = result.await;
        call.finish(result, |_| None).await
    }
}

impl ScopedServer {
    /// How the database would run what was admitted.
    async fn plan(&mut self, admitted: &AdmittedQuery) -> Result<PlanNode, Error> {
        let plan = self.session.explain(admitted.query(), &self.context.config.limits).await;
        plan.map_err(|error| admitted.place(error))
    }
}
