//! Sample databases: the shop of a small business, as SQLite.
//!
//! ```text
//! customers 1--n orders 1--n order_items n--1 products      order_totals: a view, one row per order
//! ```
//!
//! Each tenant has a business of its own, and its name in every row that matters: e-mail addresses
//! end in `@{tenant}.example`, article numbers start with its id. A row that shows up
//! at another tenant is recognised at sight. `customers.password_hash` is there to be denied.
//!
//! The same [`Sample`] always gives the same content, on every machine.

use std::path::Path;
use std::{fs, io};

use jiff::ToSpan;
use jiff::civil::{DateTime, date};
use rusqlite::{Connection, Transaction, params};

/// What to build.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    /// The tenant's id, also the seed.
    pub(super) tenant: &'a str,
    /// What the tenant sells, and to whom.
    pub(super) business: Business,
}

/// A line of business.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub(super) enum Business {
    /// Energy parts, to Europe.
    Energy,
    /// Office software, to Asia.
    Software,
    /// Tools, to North America.
    Tools,
}

/// Why a sample could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// SQLite could not write it.
    #[error("cannot write the sample database")]
    Database(#[from] rusqlite::Error),
    /// The finished file could not be put in place.
    #[error("cannot put the sample database in place")]
    File(#[from] io::Error),
}

impl Sample<'static> {
    /// The samples that `tenant_configs/` expects.
    pub(super) const ALL: [Self; 3] = [
        Self { tenant: "acmecorp", business: Business::Tools },
        Self { tenant: "globex01", business: Business::Energy },
        Self { tenant: "initech1", business: Business::Software },
    ];
}

/// Builds `sample` as the SQLite file `path`: 400 customers, 2,000 orders of about 5,000 items,
/// 120 products.
///
/// A file that is there already is replaced; nobody may have it open. `path` never holds an
/// unfinished database: it is written beside it, as `{path}.partial`.
pub(super) fn build(path: &Path, sample: Sample<'_>) -> Result<(), Error> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let mut connection = Connection::open(&partial)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let mut random = Random::seeded(sample.tenant);
    customers(&transaction, sample, &mut random)?;
    let prices = products(&transaction, sample, &mut random)?;
    orders(&transaction, &prices, &mut random)?;
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    fs::rename(&partial, path)?;
    Ok(())
}

fn customers(
    transaction: &Transaction<'_>,
    sample: Sample<'_>,
    random: &mut Random,
) -> rusqlite::Result<()> {
    let words = sample.business.words();
    let mut insert = transaction.prepare("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)")?;
    for id in 1..=CUSTOMERS {
        let (first, last) = (random.pick(&words.first_names), random.pick(&words.last_names));
        let mailbox = format!("{first}.{last}.{id}").to_lowercase();
        let email = format!("{mailbox}@{}.example", sample.tenant);
        let (salt, hash) = (random.base64(22), random.base64(43));
        insert.execute(params![
            id,
            format!("{first} {last}"),
            email,
            random.pick(&words.countries),
            format!("$argon2id$v=19$m=19456,t=2,p=1${salt}${hash}"),
            moment(date(2024, 1, 1).at(8, 0, 0, 0), id * 20 * 60 + random.below(20 * 60)),
        ])?;
    }
    Ok(())
}

/// Inserts the products and returns their prices in the order of their ids.
fn products(
    transaction: &Transaction<'_>,
    sample: Sample<'_>,
    random: &mut Random,
) -> rusqlite::Result<Vec<u32>> {
    let words = sample.business.words();
    let prefix = sample.tenant.to_uppercase();
    let mut insert = transaction.prepare("INSERT INTO products VALUES (?, ?, ?, ?, ?)")?;
    let (mut id, mut prices) = (0, Vec::new());
    for kind in words.products {
        let base = 500 + random.below(40_000);
        for variant in words.variants {
            id += 1;
            let sku = format!("{prefix}-{}", 1_000 + id);
            // What shops charge: so and so much and 99.
            let price = (base + random.below(base)) / 100 * 100 + 99;
            let name = format!("{variant} {kind}");
            insert.execute(params![id, sku, name, price, random.below(500)])?;
            prices.push(price);
        }
    }
    Ok(prices)
}

fn orders(
    transaction: &Transaction<'_>,
    prices: &[u32],
    random: &mut Random,
) -> rusqlite::Result<()> {
    let mut insert_order = transaction.prepare("INSERT INTO orders VALUES (?, ?, ?, ?)")?;
    let mut insert_item = transaction.prepare("INSERT INTO order_items VALUES (?, ?, ?, ?, ?)")?;
    for order in 1..=ORDERS {
        // The lesser of two draws: a few customers order often, most now and then.
        let customer = 1 + random.below(CUSTOMERS).min(random.below(CUSTOMERS));
        let status = match random.below(100) {
            0..5 => "cancelled",
            _ if order > ORDERS - 40 => "pending",
            _ if order > ORDERS - 120 => "shipped",
            _ => "delivered",
        };
        let created = moment(date(2025, 1, 1).at(6, 0, 0, 0), order * 240 + random.below(240));
        insert_order.execute(params![order, customer, status, created])?;
        for line in 1..=1 + random.below(4) {
            let index = random.below(PRODUCTS);
            let price = prices[index as usize];
            insert_item.execute(params![order, line, index + 1, 1 + random.below(5), price])?;
        }
    }
    Ok(())
}

/// ISO 8601, UTC.
fn moment(start: DateTime, minutes: u32) -> String {
    format!("{}Z", start.saturating_add(i64::from(minutes).minutes()))
}

const CUSTOMERS: u32 = 400;
const ORDERS: u32 = 2_000;
const PRODUCTS: u32 = 120;

const SCHEMA: &str = "
CREATE TABLE customers (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    email         TEXT NOT NULL UNIQUE,
    country       TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at    TEXT NOT NULL
) STRICT;

CREATE TABLE products (
    id          INTEGER PRIMARY KEY,
    sku         TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    stock       INTEGER NOT NULL CHECK (stock >= 0)
) STRICT;

CREATE TABLE orders (
    id          INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    status      TEXT NOT NULL CHECK (status IN ('pending', 'shipped', 'delivered', 'cancelled')),
    created_at  TEXT NOT NULL
) STRICT;

CREATE TABLE order_items (
    order_id    INTEGER NOT NULL REFERENCES orders (id),
    line        INTEGER NOT NULL,
    product_id  INTEGER NOT NULL REFERENCES products (id),
    quantity    INTEGER NOT NULL CHECK (quantity > 0),
    price_cents INTEGER NOT NULL,
    PRIMARY KEY (order_id, line)
) STRICT, WITHOUT ROWID;

CREATE INDEX orders_by_customer ON orders (customer_id);
CREATE INDEX order_items_by_product ON order_items (product_id);

CREATE VIEW order_totals AS
SELECT orders.id AS order_id,
       customers.name AS customer,
       count(*) AS item_count,
       sum(order_items.quantity * order_items.price_cents) AS total_cents
FROM orders
JOIN customers ON customers.id = orders.customer_id
JOIN order_items ON order_items.order_id = orders.id
GROUP BY orders.id;
";

/// What a business deals in. Ten variants of twelve kinds are [`PRODUCTS`].
struct Words {
    first_names: [&'static str; 16],
    last_names: [&'static str; 16],
    countries: [&'static str; 6],
    variants: [&'static str; 10],
    products: [&'static str; 12],
}

impl Business {
    #[rustfmt::skip]
    fn words(self) -> Words {
        match self {
            Self::Energy => Words {
                first_names: [
                    "Anneke", "Bjorn", "Clara", "Dieter", "Elin", "Franz", "Greta", "Henrik",
                    "Ingrid", "Jonas", "Katrin", "Lars", "Marit", "Niels", "Petra", "Stefan",
                ],
                last_names: [
                    "Andersen", "Bakker", "Dahl", "Eriksson", "Fischer", "Gruber", "Hansen", "Jansen",
                    "Keller", "Lindqvist", "Meyer", "Nilsen", "Olsson", "Schmidt", "Vogel", "Weber",
                ],
                countries: ["AT", "DE", "DK", "NL", "NO", "SE"],
                variants: [
                    "12 V", "24 V", "48 V", "230 V", "400 V",
                    "Marine", "Rooftop", "Rack", "Outdoor", "Spare",
                ],
                products: [
                    "Battery Module", "Breaker", "Busbar", "Charge Controller", "Contactor", "Fuse",
                    "Heat Sink", "Inverter", "Meter", "Relay", "Solar Panel", "Transformer",
                ],
            },
            Self::Software => Words {
                first_names: [
                    "Aarav", "Chen", "Deepa", "Eun", "Farah", "Haruto", "Isha", "Jin",
                    "Kavya", "Linh", "Mei", "Nadia", "Omar", "Priya", "Ravi", "Yuki",
                ],
                last_names: [
                    "Chandra", "Das", "Gupta", "Huang", "Ito", "Kim", "Lim", "Mehta",
                    "Nguyen", "Park", "Rao", "Sato", "Singh", "Tan", "Wang", "Zhang",
                ],
                countries: ["ID", "IN", "JP", "KR", "SG", "VN"],
                variants: [
                    "Basic", "Standard", "Professional", "Enterprise", "Campus",
                    "Charity", "Trial", "Site", "Cloud", "Archive",
                ],
                products: [
                    "Badge Printer", "Calendar", "Expense Report", "Forms", "Invoice Desk", "Mail Merge",
                    "Meeting Minutes", "Payroll", "Slide Maker", "Spreadsheet", "Time Sheet", "Wiki",
                ],
            },
            Self::Tools => Words {
                first_names: [
                    "Abigail", "Brandon", "Carol", "Dwayne", "Emily", "Frank", "Grace", "Howard",
                    "Irene", "Jack", "Karen", "Leroy", "Megan", "Norman", "Olivia", "Walter",
                ],
                last_names: [
                    "Baker", "Carter", "Dawson", "Ellis", "Foster", "Grant", "Hayes", "Jenkins",
                    "Lawson", "Mitchell", "Nelson", "Parker", "Reed", "Sullivan", "Turner", "Wallace",
                ],
                countries: ["CA", "GT", "JM", "MX", "PA", "US"],
                variants: [
                    "Compact", "Heavy-Duty", "Insulated", "Left-Handed", "Magnetic",
                    "Folding", "Cordless", "Precision", "Workshop", "Travel",
                ],
                products: [
                    "Anvil", "Chisel", "Clamp", "Drill", "File", "Hammer",
                    "Level", "Plane", "Pliers", "Saw", "Screwdriver", "Wrench",
                ],
            },
        }
    }
}

/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): enough for
/// sample data, for nothing else.
struct Random(u64);

impl Random {
    /// Seeded by the FNV-1a hash of `text`.
    fn seeded(text: &str) -> Self {
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `limit`.
    fn below(&mut self, limit: u32) -> u32 {
        let scaled = ((self.next() >> 32) * u64::from(limit)) >> 32;
        u32::try_from(scaled).expect("less than limit")
    }

    fn pick<'a, const N: usize>(&mut self, items: &[&'a str; N]) -> &'a str {
        let count = u32::try_from(N).expect("a short list");
        items[self.below(count) as usize]
    }

    fn base64(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..length).map(|_| char::from(ALPHABET[self.below(64) as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of every table and view, as text.
    fn dump(path: &Path) -> String {
        use std::fmt::Write;
        let connection = Connection::open(path).unwrap();
        let mut dump = String::new();
        for relation in ["customers", "products", "orders", "order_items", "order_totals"] {
            let mut statement = connection.prepare(&format!("SELECT * FROM {relation}")).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    write!(dump, "{:?}|", row.get_ref(column).unwrap()).unwrap();
                }
                writeln!(dump, "{relation}").unwrap();
            }
        }
        dump
    }

    fn number(connection: &Connection, query: &str) -> u32 {
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn building_twice_gives_the_same_content() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["first.db", "second.db"].map(|name| directory.path().join(name));
        build(&first, Sample::ALL[0]).unwrap();
        build(&second, Sample::ALL[0]).unwrap();
        build(&second, Sample::ALL[0]).unwrap();
        assert!(dump(&first) == dump(&second), "the contents differ");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "something was left behind");
    }

    #[test]
    fn the_database_is_of_the_promised_size_and_sound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.db");
        for sample in Sample::ALL {
            build(&path, sample).unwrap();
            let connection = Connection::open(&path).unwrap();
            assert_eq!(number(&connection, "SELECT count(*) FROM customers"), CUSTOMERS);
            assert_eq!(number(&connection, "SELECT count(*) FROM products"), PRODUCTS);
            assert_eq!(number(&connection, "SELECT count(*) FROM orders"), ORDERS);
            assert_eq!(number(&connection, "SELECT count(*) FROM order_totals"), ORDERS);
            let items = number(&connection, "SELECT count(*) FROM order_items");
            assert!((4_500..5_500).contains(&items), "{items}");
            assert_eq!(
                number(&connection, "SELECT count(*) FROM pragma_foreign_key_check"),
                0,
                "{sample:?}"
            );
        }
    }

    #[test]
    fn every_customer_and_product_carries_the_tenants_name_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        for sample in Sample::ALL {
            let path = directory.path().join(sample.tenant);
            build(&path, sample).unwrap();
            let connection = Connection::open(&path).unwrap();
            let own = |table: &str, column: &str, pattern: String| {
                let query = format!("SELECT count(*) FROM {table} WHERE {column} LIKE '{pattern}'");
                number(&connection, &query)
            };
            assert_eq!(
                own("customers", "email", format!("%@{}.example", sample.tenant)),
                CUSTOMERS
            );
            assert_eq!(
                own("products", "sku", format!("{}-____", sample.tenant.to_uppercase())),
                PRODUCTS
            );
            let content = dump(&path);
            for other in Sample::ALL.iter().filter(|other| other.tenant != sample.tenant) {
                assert!(!content.contains(other.tenant));
            }
        }
    }
}
