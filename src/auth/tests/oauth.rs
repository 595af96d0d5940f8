//! Access tokens of issuers: what is admitted, what is not, and how keys are got.

use axum::http::StatusCode;
use ring::signature;
use serde_json::{Value, json};

use super::issuer::*;
use super::*;
use crate::auth::{Algorithm, IssuerOptions, KeySource, PublicUrl};

#[tokio::test]
async fn a_token_of_every_algorithm_gives_its_subject_its_tenant_and_its_scopes() {
    let bench = Bench::new().await;
    for algorithm in Algorithm::ALL {
        let signer = Signer::new("first", algorithm);
        let served = Served::start(key_set(&[&signer])).await;
        let options = IssuerOptions { algorithms: vec![algorithm], ..issuer(&served) };
        bench.admit(vec![options]);
        let access = bench.access(&signer.sign(&bench.claims())).await.unwrap();
        assert_eq!(access.tenant().as_str(), "tenant001");
        let permissions = [Permission::Query, Permission::List].into_iter().collect();
        assert_eq!(access.permissions(), permissions, "{algorithm}");
        let subject = Actor::Subject { issuer: NAME.to_owned(), subject: "ann".to_owned() };
        assert_eq!(*access.actor(), subject);
        // With one bit of the signature, and of what is signed, another.
        let token = signer.sign(&bench.claims());
        let last_but_one = token.len() - 2;
        let other = if token.as_bytes()[last_but_one] == b'A' { "B" } else { "A" };
        let altered = format!("{}{other}{}", &token[..last_but_one], &token[last_but_one + 1..]);
        assert!(!bench.admits(&altered).await, "{algorithm}");
    }
}

#[tokio::test]
async fn claims_that_are_not_for_here_and_now_are_refused_and_their_neighbours_are_not() {
    let bench = Bench::new().await;
    let now = bench.fixture.clock.now().as_second();
    let named = format!("{PUBLIC}/mcp/tenant001");
    let cases = [
        ("aud", json!([named, "https://other.example.com"]), true),
        ("aud", json!("https://other.example.com"), false),
        ("aud", json!(format!("{PUBLIC}/mcp/tenant002")), false),
        ("aud", json!(format!("{named}/")), false),
        ("aud", json!(named.to_uppercase()), false),
        ("aud", json!(format!("{PUBLIC}/mcp")), false),
        ("aud", json!([]), false),
        ("aud", json!([named, 1]), false),
        ("aud", Value::Null, false),
        ("iss", json!("https://id.example.com/"), false),
        ("iss", json!("https://evil.example.com"), false),
        ("iss", Value::Null, false),
        ("exp", json!(now - 29), true),
        ("exp", json!(now - 30), false),
        ("exp", json!(0), false),
        ("exp", json!(i64::MAX), false),
        ("exp", json!(1e300), false),
        ("exp", json!((now + 60).to_string()), false),
        ("exp", Value::Null, false),
        ("nbf", json!(now + 30), true),
        ("nbf", json!(now + 31), false),
        ("nbf", json!("soon"), false),
        ("nbf", json!(i64::MIN), false),
        ("nbf", Value::Null, true),
        ("nbf", json!(0.5), true),
        ("tenant", json!("tenant002"), false),
        ("tenant", json!("nobody009"), false),
        ("tenant", json!("../tenant001"), false),
        ("tenant", json!(["tenant001"]), false),
        ("tenant", Value::Null, false),
        ("sub", json!("s".repeat(255)), true),
        ("sub", json!("s".repeat(256)), false),
        ("sub", json!(""), false),
        ("sub", Value::Null, false),
        ("scope", Value::Null, true),
        ("scope", json!(["query", "else"]), true),
        ("scope", json!(7), false),
        ("iat", json!("whenever"), true),
        ("jti", json!({ "any": ["thing"] }), true),
    ];
    for (name, value, is_admitted) in cases {
        let mut claims = bench.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
        let token = bench.signer.sign(&claims);
        assert_eq!(bench.admits(&token).await, is_admitted, "{name} {value}");
    }
}

#[tokio::test]
async fn headers_that_ask_for_something_else_are_refused_and_what_they_point_to_is_not_fetched() {
    let bench = Bench::new().await;
    let evil = Signer::new("evil", Algorithm::Es256);
    let elsewhere = Served::start(key_set(&[&evil, &bench.signer])).await;
    let url = elsewhere.url();
    let cases = [
        ("typ", json!("JWT"), true),
        ("typ", json!("application/at+JWT"), true),
        ("typ", Value::Null, true),
        ("typ", json!("logout+jwt"), false),
        ("typ", json!(1), false),
        ("alg", json!("none"), false),
        ("alg", json!("None"), false),
        ("alg", json!("HS256"), false),
        ("alg", json!("es256"), false),
        ("alg", json!("ES384"), false),
        ("alg", json!("EdDSA"), false),
        ("alg", Value::Null, false),
        ("kid", json!("../../../../dev/null"), false),
        ("kid", json!(url), false),
        ("kid", json!("first' OR '1'='1"), false),
        ("kid", json!("k".repeat(5_000)), false),
        ("kid", json!(""), false),
        ("kid", json!(["first"]), false),
        ("kid", Value::Null, false),
        ("crit", json!(["exp"]), false),
        ("crit", json!([]), false),
        ("b64", json!(false), false),
        ("cty", json!("JWT"), false),
        ("zip", json!("DEF"), false),
        ("enc", json!("A256GCM"), false),
        ("jku", json!(url), true),
        ("x5u", json!(url), true),
        ("jwk", evil.jwk(), true),
    ];
    for (name, value, is_admitted) in cases {
        let mut header = bench.signer.header();
        if value.is_null() {
            header.as_object_mut().unwrap().remove(name);
        } else {
            header[name] = value.clone();
        }
        let token = bench.signer.sign_text(&header.to_string(), &bench.claims().to_string());
        assert_eq!(bench.admits(&token).await, is_admitted, "{name} {value}");
        // The same by a key that only the token itself speaks for.
        let token = evil.sign_text(&header.to_string(), &bench.claims().to_string());
        assert!(!bench.admits(&token).await, "{name} {value}, by another");
    }
    assert_eq!(elsewhere.count(), 0);
    bench.configure(|options| options.require_typ = true);
    for (kind, is_admitted) in [(json!("at+jwt"), true), (json!("JWT"), false)] {
        let header = json!({ "alg": "ES256", "kid": "first", "typ": kind });
        let token = bench.signer.sign_text(&header.to_string(), &bench.claims().to_string());
        assert_eq!(bench.admits(&token).await, is_admitted);
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with_and_no_signature_is_none() {
    let bench = Bench::new().await;
    let signer = Signer::new("first", Algorithm::Rs256);
    bench.served.answer(StatusCode::OK, key_set(&[&signer]));
    bench.configure(|options| options.algorithms = vec![Algorithm::Rs256]);
    assert!(bench.admits(&signer.sign(&bench.claims())).await);
    let Key::Rsa(key) = &signer.key else { unreachable!() };
    let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
    let claims = base64(bench.claims().to_string());
    for secret in [key.public().as_ref(), &public.n, signer.jwk().to_string().as_bytes(), b""] {
        for name in ["HS256", "RS256", "none"] {
            let header = base64(json!({ "alg": name, "kid": "first" }).to_string());
            let signed = format!("{header}.{claims}");
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = base64(ring::hmac::sign(&secret, signed.as_bytes()));
            assert!(!bench.admits(&format!("{signed}.{tag}")).await);
            assert!(!bench.admits(&format!("{signed}.")).await);
        }
    }
    // A key of one algorithm does not serve for another of the same family.
    let mut jwk = signer.jwk();
    jwk["alg"] = "RS512".into();
    bench.served.answer(StatusCode::OK, json!({ "keys": [jwk] }).to_string());
    bench.fixture.clock.advance(Duration::from_hours(2));
    assert!(!bench.admits(&signer.sign(&bench.claims())).await);
}

#[tokio::test]
async fn what_is_not_three_parts_of_base64_and_json_without_doubles_is_refused() {
    let bench = Bench::new().await;
    let header = bench.signer.header().to_string();
    let claims = bench.claims().to_string();
    let token = bench.token();
    let parts: Vec<&str> = token.split('.').collect();
    let doubled = claims.replacen('{', r#"{"tenant":"tenant002","#, 1);
    let nested = claims.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1);
    let tokens = [
        bench.signer.sign_text(&header, &doubled),
        bench.signer.sign_text(&header, &nested),
        bench.signer.sign_text(&header.replacen('{', r#"{"alg":"none","#, 1), &claims),
        bench.signer.sign_text(&header, &format!("[{claims}]")),
        bench.signer.sign_text(&header, &format!("{claims} {claims}")),
        bench.signer.sign_text(&header, "\u{ff}"),
        bench.signer.sign_text(
            &header,
            &claims.replacen('{', &format!("{{\"x\":\"{}\",", "y".repeat(8_192)), 1),
        ),
        bench.signer.sign_text(
            &header,
            &claims.replacen('{', &format!("{{\"x\":{}1{},", "[".repeat(500), "]".repeat(500)), 1),
        ),
        format!("{}.{}.{}=", parts[0], parts[1], parts[2]),
        format!("{}.{}..{}", parts[0], parts[1], parts[2]),
        format!("{token}.{}.{}", parts[1], parts[2]),
        format!(" {token}"),
        format!("{}.{}", parts[0], parts[1]),
        "..".to_owned(),
        format!("tnt_{token}"),
    ];
    for token in tokens {
        assert!(!bench.admits(&token).await, "{token}");
    }
    assert!(bench.admits(&bench.signer.sign_text(&header, &format!("{claims}\n"))).await);
    // An issuer's endpoint is not asked for what does not name it.
    assert_eq!(bench.served.count(), 1);
}

#[tokio::test]
async fn a_token_is_for_one_endpoint_and_one_tenant() {
    let bench = Bench::new().await;
    let with_audience = |audience: Value| {
        let mut claims = bench.claims();
        claims["aud"] = audience;
        bench.signer.sign(&claims)
    };
    let access = async |token: &str, path: Option<&str>| {
        bench.fixture.access(token, path).await.map_err(|error| error.code())
    };
    let (named, shared) = (format!("{PUBLIC}/mcp/tenant001"), format!("{PUBLIC}/mcp"));
    let [of_named, of_shared] = [&named, &shared].map(|url| with_audience(json!(url)));
    let of_both = with_audience(json!([named, shared]));
    let unauthenticated = ErrorCode::Unauthenticated;
    access(&of_named, Some("tenant001")).await.unwrap();
    assert_eq!(access(&of_named, None).await.unwrap_err(), unauthenticated);
    access(&of_shared, None).await.unwrap();
    assert_eq!(access(&of_shared, Some("tenant001")).await.unwrap_err(), unauthenticated);
    access(&of_both, None).await.unwrap();
    access(&of_both, Some("tenant001")).await.unwrap();
    for other in ["tenant002", "nobody009", "%"] {
        assert_eq!(access(&of_both, Some(other)).await.unwrap_err(), ErrorCode::Forbidden);
    }
    bench.configure(|options| options.audience = Some("urn:tenantry:{tenant}".to_owned()));
    access(&with_audience(json!("urn:tenantry:tenant001")), None).await.unwrap();
    assert_eq!(
        access(&with_audience(json!("urn:tenantry:tenant002")), None).await.unwrap_err(),
        unauthenticated
    );
    assert_eq!(access(&of_named, None).await.unwrap_err(), unauthenticated);
}

#[tokio::test]
async fn an_issuer_vouches_for_the_tenants_and_scopes_of_the_settings_only() {
    let bench = Bench::new().await;
    bench.configure(|options| options.tenants = Some(vec![id("tenant002")]));
    assert!(!bench.admits(&bench.token()).await);
    bench.configure(|options| {
        options.tenants = Some(vec![id("tenant001")]);
        options.scope_claim = "scp".to_owned();
        options.scopes = BTreeMap::from([("crm:read".to_owned(), Permission::Query)]);
    });
    let mut claims = bench.claims();
    claims["scp"] = json!(["crm:read", "write", "crm:write"]);
    let access = bench.access(&bench.signer.sign(&claims)).await.unwrap();
    assert_eq!(access.permissions(), [Permission::Query].into_iter().collect());
    let resource = bench.fixture.auth.protected_resource(Some("nobody009")).unwrap();
    assert_eq!(resource.scopes_for(Permissions::READ), ["crm:read"]);
    assert_eq!(resource.resource, format!("{PUBLIC}/mcp/nobody009"));
    assert_eq!(bench.fixture.auth.protected_resource(Some("no")), None);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_one_that_was_withdrawn_stops() {
    let bench = Bench::new().await;
    let next = Signer::new("second", Algorithm::Es256);
    assert!(bench.admits(&bench.token()).await);
    bench.served.answer(StatusCode::OK, key_set(&[&next]));
    bench.fixture.clock.advance(Duration::from_secs(30));
    assert!(bench.admits(&next.sign(&bench.claims())).await);
    assert!(!bench.admits(&bench.token()).await);
    assert_eq!(bench.served.count(), 2);
}

#[tokio::test]
async fn kids_that_nobody_has_do_not_hammer_the_issuer() {
    let bench = Bench::new().await;
    let evil = Signer::new("x", Algorithm::Es256);
    let tokens = (0..200).map(|number| {
        let header = json!({ "alg": "ES256", "kid": format!("kid {number}") });
        evil.sign_text(&header.to_string(), &bench.claims().to_string())
    });
    let tokens: Vec<String> = tokens.collect();
    let all = tokens.iter().map(|token| bench.admits(token));
    assert!(futures_util::future::join_all(all).await.iter().all(|is_admitted| !is_admitted));
    assert_eq!(bench.served.count(), 1);
    // Beside them a known one works, and every 30 seconds there is one request more.
    for requests in 2..5 {
        assert!(bench.admits(&bench.token()).await);
        bench.fixture.clock.advance(Duration::from_secs(30));
        for token in &tokens[..50] {
            assert!(!bench.admits(token).await);
        }
        assert_eq!(bench.served.count(), requests);
    }
}

#[tokio::test]
async fn while_an_issuer_is_away_its_keys_go_on_for_an_hour() {
    let bench = Bench::new().await;
    assert!(bench.admits(&bench.token()).await);
    bench.served.answer(StatusCode::SERVICE_UNAVAILABLE, String::new());
    for _ in 0..5 {
        bench.fixture.clock.advance(Duration::from_mins(11));
        assert!(bench.admits(&bench.token()).await);
    }
    bench.fixture.clock.advance(Duration::from_mins(5));
    assert!(!bench.admits(&bench.token()).await);
    bench.served.answer(StatusCode::OK, key_set(&[&bench.signer]));
    bench.fixture.clock.advance(Duration::from_secs(30));
    assert!(bench.admits(&bench.token()).await);
}

#[tokio::test]
async fn a_key_set_that_cannot_be_used_replaces_none() {
    let bench = Bench::new().await;
    assert!(bench.admits(&bench.token()).await);
    let mut set: Value = serde_json::from_str(&key_set(&[&bench.signer])).unwrap();
    set["padding"] = "x".repeat(300 << 10).into();
    let huge = set.to_string();
    let many = json!({ "keys": vec![bench.signer.jwk(); 101] }).to_string();
    let mut private = bench.signer.jwk();
    private["d"] = "AA".into();
    let unusable = [
        (StatusCode::OK, huge),
        (StatusCode::OK, many),
        (StatusCode::OK, key_set(&[&bench.signer, &bench.signer])),
        (StatusCode::OK, json!({ "keys": [private] }).to_string()),
        (
            StatusCode::OK,
            json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "first" }] }).to_string(),
        ),
        (StatusCode::OK, format!("{{\"keys\":[],{}", &key_set(&[&bench.signer])[1..])),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::FOUND, key_set(&[&bench.signer])),
        (StatusCode::NOT_FOUND, key_set(&[&bench.signer])),
    ];
    let unknown = Signer::new("second", Algorithm::Es256);
    for (at, (status, body)) in unusable.into_iter().enumerate() {
        bench.served.answer(status, body);
        bench.fixture.clock.advance(Duration::from_secs(30));
        // Waits for the set to be got.
        assert!(!bench.admits(&unknown.sign(&bench.claims())).await);
        assert_eq!(bench.served.count(), at + 2);
        assert!(bench.admits(&bench.token()).await, "{at}");
    }
    let mut other = unknown.jwk();
    other["use"] = "enc".into();
    let set = json!({ "keys": [{ "kty": "new" }, 7, other, bench.signer.jwk()], "more": 1 });
    bench.served.answer(StatusCode::OK, set.to_string());
    bench.fixture.clock.advance(Duration::from_hours(2));
    assert!(bench.admits(&bench.token()).await);
    assert!(!bench.admits(&unknown.sign(&bench.claims())).await);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_end_the_request_for_keys() {
    let bench = Bench::new().await;
    let token = bench.token();
    {
        let access = std::pin::pin!(bench.access(&token));
        // As far as the request, which nobody waits for then.
        assert!(futures_util::poll!(access).is_pending());
    }
    assert!(bench.admits(&token).await);
    assert_eq!(bench.served.count(), 1);
}

#[tokio::test]
async fn what_was_granted_ends_with_the_token_and_with_the_issuer() {
    let bench = Bench::new().await;
    let access = bench.access(&bench.token()).await.unwrap();
    bench.fixture.clock.advance(Duration::from_secs(329));
    assert!(access.is_live());
    bench.fixture.clock.advance(Duration::from_secs(1));
    assert!(!access.is_live());

    let access = bench.access(&bench.token()).await.unwrap();
    bench.configure(|_| ());
    assert!(access.is_live(), "the same settings again");
    bench.configure(|options| options.require_typ = true);
    assert!(!access.is_live() && access.ended().is_cancelled());
    bench.admit(Vec::new());
    assert!(!bench.admits(&bench.token()).await);
}

#[tokio::test]
async fn keys_in_a_file_are_read_with_the_settings() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    let mut options = issuer(&bench.served);
    options.keys = KeySource::File(file.clone());
    let refused = |options: &IssuerOptions| {
        let public_url = Some(PublicUrl::parse(PUBLIC).unwrap());
        let issuers = vec![options.clone()];
        let options = Options { public_url, issuers, ..Options::default() };
        bench.fixture.auth.configure(options).unwrap_err().to_string()
    };
    assert!(refused(&options).contains("keys.json"), "{}", refused(&options));
    std::fs::write(&file, "{}").unwrap();
    assert!(refused(&options).contains("no JWK set"), "{}", refused(&options));
    std::fs::write(&file, key_set(&[&bench.signer])).unwrap();
    bench.admit(vec![options.clone()]);
    let access = bench.access(&bench.token()).await.unwrap();
    std::fs::write(&file, key_set(&[&Signer::new("second", Algorithm::Es256)])).unwrap();
    bench.admit(vec![options]);
    assert!(!access.is_live());
    assert!(!bench.admits(&bench.token()).await);
    assert_eq!(bench.served.count(), 0);
}

#[tokio::test]
async fn a_subject_cannot_forge_what_is_recorded_of_it() {
    let bench = Bench::new().await;
    let mut claims = bench.claims();
    claims["sub"] = "ann\n\u{1b}[2J\u{202e}\"}".into();
    let token = bench.signer.sign(&claims);
    let refused = bench.fixture.access(&token, Some("tenant002")).await;
    assert!(matches!(refused, Err(Error::Forbidden)));
    let entries = bench.fixture.entries();
    let Actor::Subject { subject, .. } = &entries.last().unwrap().actor else { unreachable!() };
    assert_eq!(subject, "ann\\n\\u{1b}[2J\\u{202e}\\\"}");
}

#[tokio::test]
async fn keys_are_got_over_tls_from_whom_the_roots_vouch_for_and_from_nobody_else() {
    let bench = Bench::new().await;
    let directory = tempfile::tempdir().unwrap();
    let (address, certificate) = serve_over_tls(directory.path(), key_set(&[&bench.signer])).await;
    let strange = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/database/strange-ca.pem").into();
    for (ca_file, is_admitted) in [(strange, false), (certificate, true)] {
        bench.configure(|options| {
            options.keys = KeySource::at(&format!("https://{address}/jwks")).unwrap();
            options.ca_file = Some(ca_file);
        });
        assert_eq!(bench.admits(&bench.token()).await, is_admitted);
    }
}
