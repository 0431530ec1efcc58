use super::*;

fn class(text: &str) -> AddressClass {
    AddressClass::of(text.parse().unwrap())
}

#[test]
fn addresses_have_the_class_of_the_registries() {
    use AddressClass as C;
    for (class_, addresses) in [
        (C::Unspecified, &["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"][..]),
        (
            C::Loopback,
            &[
                "127.0.0.1",
                "127.255.255.254",
                "::1",
                "::ffff:127.0.0.1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::",
            ],
        ),
        (C::LinkLocal, &["169.254.0.1", "fe80::1", "febf::1"]),
        (
            C::Metadata,
            &[
                "169.254.169.254",
                "169.254.170.2",
                "100.100.100.200",
                "fd00:ec2::254",
                "::ffff:169.254.169.254",
                "64:ff9b::a9fe:a9fe",
                "2002:a9fe:a9fe::1",
            ],
        ),
        (
            C::Private,
            &[
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "fc00::1",
                "fd12::1",
                "fec0::1",
                "64:ff9b::a00:1",
                "2002:c0a8:101::1",
                "2a00:1::5efe:10.0.0.1",
                "2a00:1::200:5efe:10.0.0.1",
            ],
        ),
        (C::CarrierGradeNat, &["100.64.0.1", "100.127.255.255"]),
        (C::Multicast, &["224.0.0.1", "239.1.1.1", "ff02::1"]),
        (C::Reserved, &["240.0.0.1", "255.255.255.255"]),
        (C::Benchmarking, &["198.18.0.1", "198.19.255.255", "2001:2::1"]),
        (
            C::Documentation,
            &["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff::1"],
        ),
        (
            C::Special,
            &[
                "192.0.0.8",
                "192.88.99.1",
                "2001::1",
                "2001:10::1",
                "2001:20::1",
                "::10.0.0.1",
                "::8.8.8.8",
                "64:ff9b:1::1",
                "100::1",
                "5f00::1",
                "4000::1",
            ],
        ),
        (
            C::Global,
            &[
                "8.8.8.8",
                "1.1.1.1",
                "172.15.255.255",
                "172.32.0.1",
                "100.63.255.255",
                "100.128.0.1",
                "169.253.0.1",
                "2606:4700::1111",
                "64:ff9b::808:808",
                "2002:808:808::1",
                "::ffff:8.8.8.8",
                "3fff:1000::1",
            ],
        ),
    ] {
        for address in addresses {
            assert_eq!(class(address), class_, "{address}");
        }
    }
}

#[test]
fn only_public_addresses_pass_unless_their_network_is_allowed() {
    let policy = AddressPolicy::new();
    for refused in
        ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "fd00:ec2::254", "::ffff:10.0.0.5"]
    {
        assert!(policy.check(refused.parse().unwrap()).is_err(), "{refused}");
    }
    assert_eq!(policy.check("8.8.8.8".parse().unwrap()), Ok(()));
    let policy = policy.allow("10.0.0.0/24".parse().unwrap());
    assert_eq!(policy.check("10.0.0.5".parse().unwrap()), Ok(()));
    assert_eq!(policy.check("::ffff:10.0.0.5".parse().unwrap()), Ok(()));
    assert!(policy.check("10.0.1.5".parse().unwrap()).is_err());
    // Hidden in IPv6 it is another way to the same place, which the operator did not name.
    assert!(policy.check("64:ff9b::a00:5".parse().unwrap()).is_err());
}

#[test]
fn an_own_address_is_noticed_whatever_its_range() {
    assert!(is_own("127.0.0.1".parse().unwrap()));
    assert!(!is_own("8.8.8.8".parse().unwrap()));
}

#[test]
fn networks_are_read_strictly() {
    for (text, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("0.0.0.0/0", "8.8.8.8", "::1"),
        ("::/0", "2001:db8::1", "8.8.8.8"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("fd00::/8", "fdff::1", "fe00::1"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
    ] {
        let network: Network = text.parse().unwrap();
        assert!(network.contains(inside.parse().unwrap()), "{text} has {inside}");
        assert!(!network.contains(outside.parse().unwrap()), "{text} has {outside}");
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    for bad in [
        "",
        "/8",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0.0/008",
        "10.0.0.1/8",
        "::1/64",
        "::/129",
        "a/8",
    ] {
        assert!(bad.parse::<Network>().is_err(), "taken: {bad:?}");
    }
}
