//! What travels between a session and its server, seen from between them; and servers that lie.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tenantry::database::{Database, Error, Unavailable};
use tenantry::tenant::{Access, Connection, Credentials, Limits, PostgresTarget, TlsMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::postgres::{password, target, told, with_shop};
use super::{all, connect, run, run_with};

/// Passes bytes on to the real server, and remembers those of the client.
async fn tap() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let remembered = Arc::clone(&heard);
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(("127.0.0.1", target().port)).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            heard.lock().unwrap().extend_from_slice(&buffer[..length]);
            to_server.write_all(&buffer[..length]).await.unwrap();
        }
    });
    (port, remembered)
}

fn plain(port: u16) -> PostgresTarget {
    PostgresTarget { port, host: "127.0.0.1".to_owned(), tls: TlsMode::Disable, ..target() }
}

async fn open_at(port: u16) -> Result<Box<dyn Database>, Error> {
    let credentials = password(&told("TENANTRY_TEST_PG_PASSWORD"));
    let connection = Connection::Postgres(plain(port));
    connect(connection, Access::default(), &credentials, Path::new("/nowhere")).await
}

/// The tags of the messages behind the first `skip` bytes.
fn tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let [tag, a, b, c, d, ..] = *bytes {
        tags.push(char::from(tag));
        bytes = &bytes[1 + usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap()..];
    }
    tags
}

#[tokio::test]
async fn only_the_extended_protocol_is_spoken_and_a_statement_is_one_flight() {
    with_shop().await;
    let (port, heard) = tap().await;
    let mut session = open_at(port).await.unwrap();
    // The first message has no tag.
    let login = heard.lock().unwrap().clone();
    let startup = usize::try_from(u32::from_be_bytes(login[..4].try_into().unwrap())).unwrap();
    assert_eq!(tags(&login[startup..]), "pp");
    let mut flights = Vec::new();
    let calls = "SELECT upper('a')";
    let texts =
        ["SELECT 1", "/* */ SELECT id FROM customers", "SELECT 1", calls, calls, "SELECT 1"];
    for sql in texts {
        heard.lock().unwrap().clear();
        run(&mut *session, sql).await.unwrap();
        flights.push(tags(&heard.lock().unwrap()));
    }
    // Ours are parsed once: begin and its limits; the caller's; the end.
    let (first, other) = ("CPCPCPCPBEBEPDBEBEBES", "BEBEPDBEBEBES");
    // Before the first call of a function the session asks what else has its name.
    let asks = "BEBEPDBESPDBEBEBES";
    // The third time the server has it.
    let kept = "BEBEBEBEBES";
    assert_eq!(flights, [first, other, other, asks, other, kept]);
    let mut flights = Vec::new();
    for number in [7, 8] {
        heard.lock().unwrap().clear();
        let (sql, params) = ("SELECT $1::int AS x", vec![json!(number)]);
        run_with(&mut *session, sql, params, &Limits::default()).await.unwrap();
        flights.push(tags(&heard.lock().unwrap()));
    }
    assert_eq!(flights, ["BEBEPDSBEBEBES", kept]);
    heard.lock().unwrap().clear();
    session.ping().await.unwrap();
    assert_eq!(tags(&heard.lock().unwrap()), "S");
    heard.lock().unwrap().clear();
    all(&mut *session, &Access::default()).await;
    run(&mut *session, "SELECT 1 / 0").await.unwrap_err();
    drop(session);
    for _ in 0..100 {
        if heard.lock().unwrap().last_chunk() == Some(b"X\0\0\0\x04") {
            break;
        }
        tokio::task::yield_now().await;
    }
    let all = tags(&heard.lock().unwrap());
    assert!(all.chars().all(|tag| "PDBESCX".contains(tag)), "{all}");
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// A server that lets everyone in, and then answers each flight with `answer`, once.
async fn liar(login: Vec<u8>, answer: Vec<u8>, repeat: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        // The second connection is a cancellation.
        while let Ok((mut client, _)) = listener.accept().await {
            let (login, answer) = (login.clone(), answer.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                assert!(client.read(&mut buffer).await.is_ok());
                let talk = async {
                    client.write_all(&login).await?;
                    client.read_u8().await?;
                    for _ in 0..repeat {
                        client.write_all(&answer).await?;
                    }
                    // Open until the other side has had enough.
                    while client.read(&mut buffer).await? > 0 {}
                    std::io::Result::Ok(())
                };
                drop(talk.await);
            });
        }
    });
    port
}

fn welcome() -> Vec<u8> {
    let key = message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]);
    [message(b'R', &[0; 4]), key, message(b'Z', b"I")].concat()
}

async fn open_liar(port: u16) -> Result<Box<dyn Database>, Error> {
    let connection = Connection::Postgres(plain(port));
    connect(connection, Access::default(), &Credentials::default(), Path::new("/nowhere")).await
}

#[tokio::test]
async fn a_server_that_lies_fails_its_own_statement_only() {
    let announced = |tag: u8, length: u32| [&[tag], &length.to_be_bytes()[..]].concat();
    // What our own beginning is answered with.
    let begun = [message(b'C', b"BEGIN\0"), message(b'C', b"SELECT 1\0")].concat();
    let columns = {
        let mut body = vec![0, 1];
        body.extend(b"x\0");
        body.extend([0, 0, 0, 0, 0, 0]);
        body.extend(23_u32.to_be_bytes());
        body.extend([0, 4, 255, 255, 255, 255, 0, 0]);
        message(b'T', &body)
    };
    let row = |body: &[u8]| message(b'D', body);
    let cut_off = || [begun.clone(), columns.clone()].concat();
    for (name, answer, repeat) in [
        ("not the protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 1),
        ("a length below four", announced(b'C', 3), 1),
        ("a long message", announced(b'T', 1 << 30), 1),
        ("the longest message", announced(b'E', u32::MAX), 1),
        ("endless notices", message(b'N', &[b'M'; 1_000]), 5_000),
        ("a copy", message(b'H', &[0, 0, 0]), 1),
        (
            "a row of more cells",
            [cut_off(), row(&[0, 2, 0, 0, 0, 1, b'1', 0, 0, 0, 1, b'1'])].concat(),
            1,
        ),
        ("a row without cells", [cut_off(), row(&[0, 0])].concat(), 1),
        (
            "a cell longer than its row",
            [cut_off(), row(&[0, 1, 127, 255, 255, 255, b'1'])].concat(),
            1,
        ),
        ("no integer", [cut_off(), row(&[0, 1, 0, 0, 0, 1, b'x'])].concat(), 1),
        ("cut columns", [begun.clone(), message(b'T', &[0, 9, b'x'])].concat(), 1),
        ("an error without an end", [begun.clone(), message(b'E', b"Cxyz")].concat(), 1),
        (
            "still in a transaction",
            [begun.clone(), message(b'C', b"\0"), message(b'Z', b"T"), message(b'Z', b"T")]
                .concat(),
            1,
        ),
    ] {
        let mut session = open_liar(liar(welcome(), answer, repeat).await).await.unwrap();
        let answer = run(&mut *session, "SELECT 1").await;
        assert_eq!(answer, Err(Unavailable::Protocol.into()), "{name}");
        assert!(session.is_broken(), "{name}");
    }
    // Whatever it announces in a login.
    for login in [announced(b'R', 1 << 30), announced(b'S', u32::MAX)] {
        let opened = open_liar(liar(login, vec![], 0).await).await;
        assert!(matches!(opened.err(), Some(Error::Unavailable(_))));
    }
}

#[tokio::test]
async fn an_error_without_a_code_is_not_passed_on_in_its_words_and_the_session_goes_on() {
    let begun = [message(b'C', b"BEGIN\0"), message(b'C', b"SELECT 1\0")].concat();
    let ended = [message(b'C', b"ROLLBACK\0"), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")];
    for (error, code, told) in [
        (&b"SERROR\0Mdivision by zero\0\0"[..], None, "the database could not run the statement"),
        (b"SERROR\0C22012\0Mdivision by zero\0\0", Some("22012"), "division by zero"),
    ] {
        let failed = [message(b'E', error), message(b'Z', b"E")].concat();
        let answer = [begun.clone(), failed, ended.concat()].concat();
        let mut session = open_liar(liar(welcome(), answer, 1).await).await.unwrap();
        let Err(Error::Failed { sqlstate, message, .. }) = run(&mut *session, "SELECT 1").await
        else {
            unreachable!("it is the statement's")
        };
        assert_eq!((sqlstate.as_deref(), message.as_str()), (code, told));
        assert!(!session.is_broken());
    }
}

#[tokio::test]
async fn who_asked_a_server_to_stop_waits_until_that_can_strike_nothing_else() {
    let begun = [message(b'C', b"BEGIN\0"), message(b'C', b"SELECT 1\0")].concat();
    let columns = {
        let mut body = vec![0, 1];
        body.extend(b"x\0");
        body.extend([0, 0, 0, 0, 0, 0]);
        body.extend(25_u32.to_be_bytes());
        body.extend([255, 255, 255, 255, 255, 255, 0, 0]);
        message(b'T', &body)
    };
    let row = {
        let text = vec![b'x'; 1 << 16];
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        message(b'D', &[&[0, 1], &length[..], &text].concat())
    };
    // By its own limit, before it has heard of the cancellation.
    let stopped = [message(b'E', b"C57014\0\0"), message(b'Z', b"E")].concat();
    let ended = [message(b'C', b"ROLLBACK\0"), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut buffer = [0; 4096];
    let server = async {
        let (mut client, _) = listener.accept().await.unwrap();
        assert!(client.read(&mut buffer).await.unwrap() > 0);
        client.write_all(&welcome()).await.unwrap();
        assert!(client.read(&mut buffer).await.unwrap() > 0);
        client
            .write_all(&[&begun[..], &columns, &row.repeat(40), &stopped].concat())
            .await
            .unwrap();
        let (canceller, _) = listener.accept().await.unwrap();
        (client, canceller)
    };
    let limits = Limits { max_result_bytes: 1 << 17, ..Limits::default() };
    let call = async {
        let mut session = open_liar(port).await.unwrap();
        let answer = run_with(&mut *session, "SELECT 1", vec![], &limits).await;
        (answer, session)
    };
    let mut call = std::pin::pin!(call);
    let (mut client, canceller) = tokio::select! {
        _ = &mut call => panic!("the cancellation is on its way"),
        connected = server => connected,
    };
    let mut next = [0; 1];
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(&mut call).is_pending(), "the cancellation is on its way");
        client.try_read(&mut next).unwrap_err();
    }
    drop(canceller);
    let answered = async {
        assert!(client.read(&mut next).await.unwrap() > 0);
        client.write_all(&ended.concat()).await.unwrap();
    };
    let ((answer, session), ()) = tokio::join!(call, answered);
    assert!(answer.unwrap().truncated && !session.is_broken());
}

#[tokio::test]
async fn rows_without_end_or_beyond_all_limits_end_at_the_timeout() {
    let begun = [message(b'C', b"BEGIN\0"), message(b'C', b"SELECT 1\0")].concat();
    // A row of two gigabytes, of which nothing comes.
    let answer = [begun, b"D\x7f\xff\xff\xff".to_vec()].concat();
    let mut session = open_liar(liar(welcome(), answer, 1).await).await.unwrap();
    let limits = Limits { statement_timeout: Duration::from_millis(10), ..Limits::default() };
    let began = Instant::now();
    let answer = run_with(&mut *session, "SELECT 1", vec![], &limits).await;
    assert_eq!(answer, Err(Error::Timeout));
    assert!(session.is_broken() && began.elapsed() < Duration::from_secs(5));
}
