//! Who gets the sessions when there are too few.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::sharing::{Grant, HandedOver, Sharing, Waiter};

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
                self.sharing.wait(&tenant, 0, Mailbox(tenant, Rc::clone(&self.granted)));
            }
        }
        self.settle();
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
    scene.sharing.wait(&'a', 1, Mailbox('a', Rc::clone(&granted)));
    assert!(matches!(scene.sharing.hand_over(&'a', 0, 'a'), HandedOver::Keep('a')));
    assert!(granted.borrow().is_empty());
    assert!(matches!(scene.sharing.hand_over(&'a', 1, 'a'), HandedOver::Taken));
    assert!(matches!(granted.borrow()[..], [('a', Grant::Instance('a'))]));
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
