//! The tool `describe_tenant_resource`: what the columns of a table or view hold.
//!
//! The figures come from one statement over a bounded number of rows, which goes the way of any
//! other: whatever a caller may not query, this does not count.

use rmcp::model::Tool;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::content::{kind_of, quoted, quoted_relation};
use super::{Caller, Error, Failure, Instances, QueryArguments, TenantContext, tools};
use crate::database::{Dialect, Relation, RelationColumn};
use crate::tenant::{Permission, Resource};

pub(super) const DESCRIBE: &str = "describe_tenant_resource";
/// Rows that are looked at.
const ROWS: u32 = 10_000;
/// Columns in one answer.
const COLUMNS: usize = 40;
/// Longest part of a text that is compared and shown, in characters.
const TEXT: u32 = 100;

/// The tool as clients see it.
pub(super) fn tool() -> Tool {
    let description = format!(
        "Statistics of the columns of a table or view, over at most {ROWS} of its rows: how many \
         values are missing, how many differ, the smallest and the largest. Where it does not look \
         at all rows, these are figures of a part."
    );
    tools::tool(
        DESCRIBE,
        "Describe a table or view",
        description,
        &json!({
            "resource_uri": {
                "type": "string",
                "description": "mcp://{tenant}/database/table/{name} or …/view/{name}",
            },
            "columns": {
                "type": "array", "items": { "type": "string" }, "maxItems": COLUMNS,
                "description": "Only these; else the first that there are.",
            },
        }),
        &["resource_uri"],
        json!({
            "resource_uri": { "type": "string" },
            "rows_examined": { "type": "integer" },
            "complete": {
                "type": "boolean", "description": "Whether these are all the rows that there are.",
            },
            "columns": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": { "type": "string" },
                        "type": { "type": "string" },
                        "nulls": { "type": "integer" },
                        "distinct": {
                            "type": "integer",
                            "description": "Absent for types whose values cannot be compared.",
                        },
                        "min": { "description": "Absent for types without an order." },
                        "max": { "description": "Absent for types without an order." },
                    },
                    "required": ["name", "type", "nulls"],
                },
            },
            "more_columns": {
                "type": "integer",
                "description": "How many columns were left out; name them to see them.",
            },
        }),
        &["resource_uri", "rows_examined", "complete", "columns"],
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DescribeArguments {
    resource_uri: String,
    columns: Option<Vec<String>>,
}

/// The answer of `describe_tenant_resource`.
#[derive(Debug, Serialize)]
pub(super) struct DescribeAnswer {
    resource_uri: String,
    rows_examined: u64,
    complete: bool,
    columns: Vec<ColumnStatistics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more_columns: Option<usize>,
}

#[derive(Debug, Serialize)]
struct ColumnStatistics {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    nulls: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    distinct: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Value>,
}

impl TenantContext {
    /// The tool `describe_tenant_resource`. Two statements: one asks for the columns.
    pub(super) async fn describe_resource(
        &self,
        instances: &mut impl Instances,
        caller: &Caller,
        arguments: Result<DescribeArguments, Error>,
    ) -> Result<DescribeAnswer, Failure> {
        let mut call = self.begin(caller, DESCRIBE, Permission::Query);
        let result = async {
            let DescribeArguments { resource_uri, columns: wanted } = arguments?;
            let scoped = call.admit_uri(&resource_uri)?;
            call.check_permission()?;
            let (Resource::Table(name) | Resource::View(name)) = scoped.resource() else {
                let message = "resource_uri must be that of a table or view";
                return Err(Error::Argument(message.to_owned()));
            };
            let kind = kind_of(scoped.resource());
            let permit = call.acquire_permit()?;
            let relation = self.relation(instances, &permit, name, kind).await?;
            let columns = chosen(&relation, wanted.as_deref())?;
            let more = relation.columns.len() - columns.len();
            let forms: Vec<Form> =
                columns.iter().map(|column| Form::of(self.dialect(), column)).collect();
            let sql = statement(&relation, &columns, &forms);
            let arguments = QueryArguments::new(&resource_uri, &sql, Some(1));
            let admitted = call.admit_counted(permit, &scoped, arguments)?;
            let answer = self.run(instances, &admitted).await?;
            let row = answer.rows.to_values().into_iter().next().unwrap_or_default();
            let mut cells = row.into_iter();
            let rows_examined = count(cells.next());
            let columns = columns.into_iter().zip(forms);
            let columns = columns
                .map(|(column, form)| ColumnStatistics {
                    name: column.name.clone(),
                    type_name: column.type_name.clone(),
                    nulls: rows_examined.saturating_sub(count(cells.next())),
                    distinct: form.is_comparable.then(|| count(cells.next())),
                    min: form.in_order.as_ref().and_then(|_| cells.next()),
                    max: form.in_order.as_ref().and_then(|_| cells.next()),
                })
                .collect();
            Ok(DescribeAnswer {
                resource_uri,
                rows_examined,
                complete: rows_examined < u64::from(ROWS),
                columns,
                more_columns: (wanted.is_none() && more > 0).then_some(more),
            })
        };
        let result = result.await;
        call.finish(result, |_| Some(1)).await
    }
}

/// A count, which is a text where JSON readers would round it.
fn count(cell: Option<Value>) -> u64 {
    cell.and_then(|value| value.as_u64()).unwrap_or_default()
}

/// The columns that are asked for.
fn chosen<'a>(
    relation: &'a Relation,
    wanted: Option<&[String]>,
) -> Result<Vec<&'a RelationColumn>, Error> {
    let Some(wanted) = wanted else {
        return Ok(relation.columns.iter().take(COLUMNS).collect());
    };
    if wanted.len() > COLUMNS {
        return Err(Error::Argument(format!("columns may name {COLUMNS} at a time")));
    }
    let find = |name: &String| {
        let found = relation.columns.iter().find(|column| column.name == *name);
        found.ok_or_else(|| {
            Error::Argument("columns names one that is not there; resources/read lists them".into())
        })
    };
    wanted.iter().map(find).collect()
}

/// What can be told of a column's values.
struct Form {
    /// Whether two values can be equal.
    is_comparable: bool,
    /// What is compared for the smallest and the largest, if there is an order.
    in_order: Option<String>,
}

impl Form {
    fn of(dialect: Dialect, column: &RelationColumn) -> Self {
        let name = quoted(&column.name);
        if dialect == Dialect::Sqlite {
            // Any value can stand in any column; long ones are cut.
            let in_order = format!(
                "CASE WHEN typeof({name}) IN ('text', 'blob') THEN substr({name}, 1, {TEXT}) \
                 ELSE {name} END"
            );
            return Self { is_comparable: true, in_order: Some(in_order) };
        }
        if column.type_name.ends_with(']') {
            return Self { is_comparable: false, in_order: None };
        }
        let base = column.type_name.split('(').next().unwrap_or_default().trim();
        match base {
            "text" | "character varying" | "character" | "name" => {
                let in_order = Some(format!("left({name}, {TEXT})"));
                Self { is_comparable: true, in_order }
            }
            "smallint"
            | "integer"
            | "bigint"
            | "numeric"
            | "real"
            | "double precision"
            | "date"
            | "money"
            | "oid"
            | "interval"
            | "inet"
            | "timestamp"
            | "time"
            | "timestamp without time zone"
            | "timestamp with time zone"
            | "time without time zone"
            | "time with time zone" => Self { is_comparable: true, in_order: Some(name) },
            "boolean" | "uuid" | "bytea" | "jsonb" => Self { is_comparable: true, in_order: None },
            _ => Self { is_comparable: false, in_order: None },
        }
    }
}

/// Counts the rows, and for each column what there is to count.
fn statement(relation: &Relation, columns: &[&RelationColumn], forms: &[Form]) -> String {
    let mut figures = vec!["count(*)".to_owned()];
    for (column, form) in columns.iter().zip(forms) {
        let name = quoted(&column.name);
        figures.push(format!("count({name})"));
        if form.is_comparable {
            figures.push(format!("count(DISTINCT {name})"));
        }
        if let Some(value) = &form.in_order {
            figures.push(format!("min({value})"));
            figures.push(format!("max({value})"));
        }
    }
    let figures = figures.join(", ");
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let names = if names.is_empty() { "1".to_owned() } else { names.join(", ") };
    let table = quoted_relation(&relation.name);
    format!("SELECT {figures} FROM (SELECT {names} FROM {table} LIMIT {ROWS}) AS examined_rows")
}
