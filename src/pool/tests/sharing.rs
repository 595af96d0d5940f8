//! Who gets the sessions when there are too few.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::sharing::{Grant, HandedOver, Sharing, Ticket, Waiter, Wish};

/// What was granted, to whom, in order.
type Grants = Rc<RefCell<Vec<(char, Grant<char>)>>>;

struct Mailbox(char, Grants);

impl Waiter for Mailbox {
    type Instance = char;

    fn grant(self, grant: Grant<char>) -> Result<(), Grant<char>> {
        self.1.borrow_mut().push((self.0, grant));
        Ok(())
    }
}

/// Sessions whose holders use them for a while and give them back, the one that had it longest first.
struct Scene {
    sharing: Sharing<char, Mailbox>,
    granted: Grants,
    busy: Vec<char>,
    opened: u32,
}

impl Scene {
    fn new(most: u32) -> Self {
        let (sharing, granted) = (Sharing::new(most), Grants::default());
        Self { sharing, granted, busy: Vec::new(), opened: 0 }
    }

    /// `count` calls of `tenant`.
    fn call(&mut self, tenant: char, count: u32) {
        for _ in 0..count {
            if self.sharing.take(&tenant) {
                self.busy.push(tenant);
                self.opened += 1;
            } else {
                self.wait(tenant, self.sharing.ticket(), Wish::Any);
            }
        }
        self.settle();
    }

    /// A call of `tenant` that waits.
    fn wait(&self, tenant: char, ticket: Ticket, wish: Wish) {
        let mailbox = Mailbox(tenant, Rc::clone(&self.granted));
        self.sharing.wait(&tenant, 0, (ticket, wish), mailbox);
    }

    /// The oldest call ends. What nobody wants is closed.
    fn end_one(&mut self) -> char {
        let tenant = self.busy.remove(0);
        match self.sharing.hand_over(&tenant, 0, tenant) {
            HandedOver::Taken => {}
            HandedOver::Close(_) | HandedOver::Keep(_) => self.sharing.release(&tenant),
        }
        self.settle();
        tenant
    }

    fn settle(&mut self) {
        for (tenant, grant) in self.granted.borrow_mut().drain(..) {
            self.opened += u32::from(matches!(grant, Grant::Session));
            self.busy.push(tenant);
        }
        assert_eq!(self.sharing.held() as usize, self.busy.len());
    }

    fn held(&self) -> BTreeMap<char, u32> {
        let mut held = BTreeMap::new();
        for tenant in &self.busy {
            *held.entry(*tenant).or_default() += 1;
        }
        held
    }
}

#[test]
fn a_tenant_alone_may_have_all_and_gives_up_half_when_another_comes() {
    let mut scene = Scene::new(10);
    scene.call('a', 100);
    assert_eq!(scene.held(), BTreeMap::from([('a', 10)]));
    scene.call('b', 100);
    for _ in 0..10 {
        scene.end_one();
    }
    assert_eq!(scene.held(), BTreeMap::from([('a', 5), ('b', 5)]));
    // From here on nobody's session is closed for the other.
    let opened = scene.opened;
    for _ in 0..50 {
        scene.end_one();
    }
    assert_eq!((scene.held()[&'a'], scene.opened), (5, opened));
}

#[test]
fn who_wants_little_has_it_whatever_the_others_want() {
    let mut scene = Scene::new(10);
    scene.call('a', 1_000);
    scene.call('b', 1_000);
    for _ in 0..20 {
        scene.end_one();
    }
    for _ in 0..20 {
        scene.call('c', 1);
        let mut ended = 0;
        while !scene.busy.contains(&'c') {
            scene.end_one();
            ended += 1;
        }
        // The next session that comes back.
        assert_eq!(ended, 1);
        while scene.end_one() != 'c' {}
    }
}

#[test]
fn more_tenants_than_sessions_take_turns() {
    let mut scene = Scene::new(2);
    for tenant in ['a', 'b', 'c', 'd', 'e'] {
        scene.call(tenant, 20);
    }
    let mut served = BTreeMap::new();
    for _ in 0..50 {
        *served.entry(scene.end_one()).or_insert(0) += 1;
    }
    assert!(served.values().all(|count| (9..=11).contains(count)), "{served:?}");
}

#[test]
fn an_instance_goes_to_a_call_of_its_own_generation_only() {
    let mut scene = Scene::new(1);
    scene.call('a', 1);
    let granted = Grants::default();
    let place = (scene.sharing.ticket(), Wish::Any);
    scene.sharing.wait(&'a', 1, place, Mailbox('a', Rc::clone(&granted)));
    assert!(matches!(scene.sharing.hand_over(&'a', 0, 'a'), HandedOver::Keep('a')));
    assert!(granted.borrow().is_empty());
    assert!(matches!(scene.sharing.hand_over(&'a', 1, 'a'), HandedOver::Taken));
    assert!(matches!(granted.borrow()[..], [('a', Grant::Instance('a'))]));
}

#[test]
fn who_may_have_an_instance_only_is_in_the_same_line_and_no_session_is_for_it() {
    let mut scene = Scene::new(2);
    scene.call('a', 1);
    let (first, second) = (scene.sharing.ticket(), scene.sharing.ticket());
    scene.wait('a', second, Wish::Any);
    assert!(matches!(scene.granted.borrow_mut().pop(), Some(('a', Grant::Session))), "one is free");
    scene.wait('a', second, Wish::Any);
    scene.wait('a', first, Wish::Instance);
    assert_eq!(scene.sharing.awaits(&'a', 0), Some(first));
    assert_eq!(scene.sharing.awaits(&'a', 1), None);
    let mut closed = 0;
    scene.sharing.relieve(|| {
        closed += 1;
        closed == 1
    });
    assert_eq!(closed, 2, "for the one that wants a session");
    assert!(matches!(scene.sharing.hand_over(&'a', 0, '1'), HandedOver::Taken));
    assert_eq!(scene.sharing.awaits(&'a', 0), None, "the first came first");
    scene.wait('a', first, Wish::Instance);
    scene.sharing.release(&'a');
    assert_eq!(scene.sharing.awaits(&'a', 0), Some(first), "a session is for the other one");
    scene.sharing.relieve(|| panic!("nothing is closed for an instance"));
    let granted: Vec<_> = scene.granted.borrow_mut().drain(..).collect();
    assert!(
        matches!(granted[..], [('a', Grant::Instance('1')), ('a', Grant::Session)]),
        "{granted:?}"
    );
    assert!(scene.sharing.cancel(&'a', first));
    assert!(!scene.sharing.is_contended());
}

#[test]
fn a_tenant_that_wants_no_session_is_closed_nothing_for_and_keeps_no_one_from_theirs() {
    let mut scene = Scene::new(4);
    scene.call('a', 2);
    scene.call('b', 2);
    scene.wait('a', scene.sharing.ticket(), Wish::Instance);
    assert!(matches!(scene.sharing.hand_over(&'b', 0, 'b'), HandedOver::Keep('b')));
    scene.call('c', 1);
    assert!(matches!(scene.sharing.hand_over(&'a', 0, 'a'), HandedOver::Close('a')));
}

#[test]
fn nothing_is_kept_of_tenants_that_hold_and_want_nothing() {
    let mut scene = Scene::new(1);
    for tenant in 'a'..='z' {
        scene.call(tenant, 2);
    }
    for _ in 0..52 {
        scene.end_one();
    }
    assert!(!scene.sharing.is_contended());
    assert_eq!(scene.sharing.tenants(), 0);
}
