//! Operators' tokens, and failures where they come in.

use super::*;
use crate::vault::OperatorRecord;

impl Fixture {
    fn operator(&self) -> (String, String) {
        let (text, info) = self.auth.create_operator(Role::Auditor, None).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test presents it")]
        let text = text.expose_secret().to_owned();
        (text, info.operator_id)
    }

    async fn operates(&self, token: &str) -> Result<(String, Role), Error> {
        self.auth.authenticate_operator(Some(token), origin()).await
    }
}

#[tokio::test]
async fn operators_failures_beyond_the_rate_are_told_nothing_and_a_valid_token_beside_them_works() {
    let fixture = Fixture::new();
    fixture.limit(3);
    let (token, operator_id) = fixture.operator();
    let (client, _) = fixture.token(None);
    let cut = &token[..token.len() - 1];
    for attempt in 0..20 {
        let wrong = ["nonsense", &client, "", cut][attempt % 4];
        let error = fixture.operates(wrong).await.unwrap_err();
        if let Error::Throttled { retry_after } = error {
            assert!(attempt >= 3 && retry_after <= Duration::from_secs(20));
        } else {
            assert!(matches!(error, Error::Unauthenticated) && attempt < 3, "{error}");
        }
        let admitted = fixture.operates(&token).await.unwrap();
        assert_eq!(admitted, (operator_id.clone(), Role::Auditor));
    }
    // Clients at the same address have their own.
    let failed = fixture.auth.authenticate(None, origin()).await;
    assert!(matches!(failed, Err(Error::Unauthenticated)));
    fixture.clock.advance(Duration::from_secs(20));
    assert!(matches!(fixture.operates("nonsense").await, Err(Error::Unauthenticated)));
    assert!(matches!(fixture.operates("nonsense").await, Err(Error::Throttled { .. })));

    fixture.clock.advance(throttle::WINDOW);
    fixture.keep(false).await;
    let entries = fixture.entries();
    let of_operators = entries.iter().filter(|entry| entry.action == "admin.connect");
    let rows: Vec<_> = of_operators.map(|entry| (entry.rows, entry.rule.as_deref())).collect();
    assert_eq!(rows[..4], [(None, None); 4]);
    assert_eq!(rows[4..], [(Some(18), Some("summary"))]);
    assert_eq!(entries.last().unwrap().peer.as_deref(), Some(PEER));
    assert_eq!(entries.len(), 6);
}

#[tokio::test]
async fn a_token_of_a_role_that_is_not_known_is_throttled_alone() {
    let fixture = Fixture::new();
    fixture.limit(3);
    let (token, text) = Token::generate_with("tno_").unwrap();
    let record = OperatorRecord {
        operator_id: "op_1".to_owned(),
        role: "emperor".to_owned(),
        created_at: fixture.clock.now(),
        expires_at: None,
    };
    fixture.vault.put_operator(token.secret(), record).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test presents it")]
    let later = text.expose_secret();
    for attempt in 0..6 {
        let refused = fixture.operates(later).await.unwrap_err();
        assert_eq!(matches!(refused, Error::Forbidden), attempt < 3, "{refused}");
    }
    let of_operator = |entry: &Entry| entry.actor == Actor::Operator { name: "op_1".to_owned() };
    assert_eq!(fixture.entries().iter().filter(|entry| of_operator(entry)).count(), 3);
    assert!(matches!(fixture.operates("nonsense").await, Err(Error::Unauthenticated)));
}

#[tokio::test]
async fn while_sealed_operators_are_told_so_however_often_they_ask() {
    let fixture = Fixture::new();
    fixture.limit(3);
    let (token, _) = fixture.operator();
    fixture.vault.seal();
    for _ in 0..10 {
        assert!(matches!(fixture.operates(&token).await, Err(Error::Sealed)));
    }
    assert_eq!(fixture.entries().len(), 3);
    fixture.unseal();
    fixture.operates(&token).await.unwrap();
}

#[tokio::test]
async fn an_operators_token_ends_at_the_second_of_its_expiry() {
    let fixture = Fixture::new();
    let end = fixture.clock.now() + Duration::from_mins(1);
    let (text, _) = fixture.auth.create_operator(Role::Operator, Some(end)).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test presents it")]
    let token = text.expose_secret();
    fixture.clock.advance(Duration::from_secs(59));
    fixture.operates(token).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert!(matches!(fixture.operates(token).await, Err(Error::Unauthenticated)));
}
