//! Authorization, TLS, SASL and delegation tokens: known, and without effect so far (pure).
//!
//! Nothing here can make a broker pretend: a listener that speaks anything but PLAINTEXT is refused.

use crate::check::Check;
use crate::property::{Property, boolean, class, double, int, list, long, password, short, string};

pub(super) const ROWS: &[Property] = &[
    string("authorizer.class.name").or("").check(Check::NonNull).low().refused(
        "Java class that decides who may do what.",
        "remove it: nothing is authorized yet, and every client would be let in",
    ),
    class("principal.builder.class")
        .or("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder")
        .per_broker()
        .accepted(
            "Java class that names the user of a connection; every connection is anonymous so far.",
        ),
    string("security.providers").low().accepted("Java security providers; no meaning here."),
    password("delegation.token.secret.key")
        .accepted("Key that signs delegation tokens; none are issued yet."),
    long("delegation.token.expiry.check.interval.ms")
        .or("3600000")
        .at_least(1)
        .low()
        .accepted("How often expired delegation tokens are removed; none are issued yet."),
    long("delegation.token.expiry.time.ms")
        .or("86400000")
        .at_least(1)
        .accepted("How long a delegation token lives between renewals; none are issued yet."),
    long("delegation.token.max.lifetime.ms")
        .or("604800000")
        .at_least(1)
        .accepted("How long a delegation token can be renewed; none are issued yet."),
    boolean("ssl.allow.dn.changes")
        .or("false")
        .low()
        .accepted("Allows a new certificate with another subject; no TLS listener is served yet."),
    boolean("ssl.allow.san.changes").or("false").low().accepted(
        "Allows a new certificate with other alternative names; no TLS listener is served yet.",
    ),
    list("ssl.cipher.suites")
        .or("")
        .check(Check::List { may_be_empty: true })
        .per_broker()
        .accepted("Cipher suites offered; no TLS listener is served yet."),
    string("ssl.client.auth")
        .or("none")
        .one_of(&["required", "requested", "none"])
        .per_broker()
        .accepted("Whether clients must show a certificate; no TLS listener is served yet."),
    list("ssl.enabled.protocols")
        .or("TLSv1.2,TLSv1.3")
        .check(Check::List { may_be_empty: true })
        .per_broker()
        .accepted("TLS versions offered; no TLS listener is served yet."),
    string("ssl.endpoint.identification.algorithm").or("https").low().per_broker().accepted(
        "How a server's name is checked against its certificate; no TLS listener is served yet.",
    ),
    class("ssl.engine.factory.class")
        .low()
        .per_broker()
        .accepted("Java class that makes TLS engines; no meaning here."),
    password("ssl.key.password")
        .per_broker()
        .accepted("Password of the private key; no TLS listener is served yet."),
    string("ssl.keymanager.algorithm")
        .or("SunX509")
        .per_broker()
        .accepted("Java key manager; no meaning here."),
    password("ssl.keystore.certificate.chain")
        .per_broker()
        .accepted("Certificate chain as PEM text; no TLS listener is served yet."),
    password("ssl.keystore.key")
        .per_broker()
        .accepted("Private key as PEM text; no TLS listener is served yet."),
    string("ssl.keystore.location")
        .per_broker()
        .accepted("File with key and certificate; no TLS listener is served yet."),
    password("ssl.keystore.password")
        .per_broker()
        .accepted("Password of the key file; no TLS listener is served yet."),
    string("ssl.keystore.type")
        .or("JKS")
        .per_broker()
        .accepted("Format of the key file; no TLS listener is served yet."),
    string("ssl.principal.mapping.rules").or("DEFAULT").low().accepted(
        "How a certificate's subject becomes a user name; no TLS listener is served yet.",
    ),
    string("ssl.protocol")
        .or("TLSv1.3")
        .per_broker()
        .accepted("TLS version of the Java context; no meaning here."),
    string("ssl.provider")
        .per_broker()
        .accepted("Java security provider for TLS; no meaning here."),
    string("ssl.secure.random.implementation")
        .low()
        .per_broker()
        .accepted("Java random source for TLS; no meaning here."),
    string("ssl.trustmanager.algorithm")
        .or("PKIX")
        .per_broker()
        .accepted("Java trust manager; no meaning here."),
    password("ssl.truststore.certificates")
        .per_broker()
        .accepted("Trusted certificates as PEM text; no TLS listener is served yet."),
    string("ssl.truststore.location")
        .per_broker()
        .accepted("File of trusted certificates; no TLS listener is served yet."),
    password("ssl.truststore.password")
        .per_broker()
        .accepted("Password of the file of trusted certificates; no TLS listener is served yet."),
    string("ssl.truststore.type")
        .or("JKS")
        .per_broker()
        .accepted("Format of the file of trusted certificates; no TLS listener is served yet."),
    class("sasl.client.callback.handler.class")
        .accepted("Java class for the client side of SASL; no meaning here."),
    list("sasl.enabled.mechanisms")
        .or("GSSAPI")
        .check(Check::List { may_be_empty: true })
        .per_broker()
        .accepted("SASL mechanisms offered; no SASL listener is served yet."),
    password("sasl.jaas.config")
        .per_broker()
        .accepted("Login modules and credentials in JAAS form; no SASL listener is served yet."),
    string("sasl.kerberos.kinit.cmd")
        .or("/usr/bin/kinit")
        .per_broker()
        .accepted("Path of kinit; Kerberos is not served."),
    long("sasl.kerberos.min.time.before.relogin")
        .or("60000")
        .per_broker()
        .accepted("Pause between Kerberos logins; Kerberos is not served."),
    list("sasl.kerberos.principal.to.local.rules")
        .or("DEFAULT")
        .check(Check::List { may_be_empty: true })
        .per_broker()
        .accepted("How a Kerberos principal becomes a user name; Kerberos is not served."),
    string("sasl.kerberos.service.name")
        .per_broker()
        .accepted("Kerberos service name of the brokers; Kerberos is not served."),
    double("sasl.kerberos.ticket.renew.jitter")
        .or("0.05")
        .per_broker()
        .accepted("Random part of the Kerberos renewal time; Kerberos is not served."),
    double("sasl.kerberos.ticket.renew.window.factor")
        .or("0.8")
        .per_broker()
        .accepted("Share of a ticket's life after which it is renewed; Kerberos is not served."),
    class("sasl.login.callback.handler.class")
        .accepted("Java class for SASL logins; no meaning here."),
    class("sasl.login.class").accepted("Java class that logs in; no meaning here."),
    int("sasl.login.connect.timeout.ms")
        .low()
        .accepted("Patience when connecting to a token endpoint; no SASL listener is served yet."),
    int("sasl.login.read.timeout.ms")
        .low()
        .accepted("Patience when reading from a token endpoint; no SASL listener is served yet."),
    short("sasl.login.refresh.buffer.seconds").or("300").per_broker().accepted(
        "How long before its end a token is renewed at the latest; no SASL listener is served yet.",
    ),
    short("sasl.login.refresh.min.period.seconds")
        .or("60")
        .per_broker()
        .accepted("Shortest time between token renewals; no SASL listener is served yet."),
    double("sasl.login.refresh.window.factor").or("0.8").per_broker().accepted(
        "Share of a token's life after which it is renewed; no SASL listener is served yet.",
    ),
    double("sasl.login.refresh.window.jitter")
        .or("0.05")
        .per_broker()
        .accepted("Random part of the token renewal time; no SASL listener is served yet."),
    long("sasl.login.retry.backoff.max.ms")
        .or("10000")
        .low()
        .accepted("Longest pause between login attempts; no SASL listener is served yet."),
    long("sasl.login.retry.backoff.ms")
        .or("100")
        .low()
        .accepted("First pause between login attempts; no SASL listener is served yet."),
    string("sasl.mechanism.controller.protocol")
        .or("GSSAPI")
        .high()
        .accepted("SASL mechanism towards controllers; no SASL listener is served yet."),
    string("sasl.mechanism.inter.broker.protocol")
        .or("GSSAPI")
        .per_broker()
        .accepted("SASL mechanism among brokers; no SASL listener is served yet."),
    string("sasl.oauthbearer.assertion.algorithm")
        .or("RS256")
        .check(Check::OneOfIgnoringCase(&["ES256", "RS256"]))
        .accepted(
            "Signature algorithm of the assertion sent to an identity provider; not used here yet.",
        ),
    string("sasl.oauthbearer.assertion.claim.aud")
        .accepted("Audience claim of that assertion; not used here yet."),
    int("sasl.oauthbearer.assertion.claim.exp.seconds")
        .or("300")
        .between(0, 86400)
        .low()
        .accepted("Lifetime of that assertion; not used here yet."),
    string("sasl.oauthbearer.assertion.claim.iss")
        .accepted("Issuer claim of that assertion; not used here yet."),
    boolean("sasl.oauthbearer.assertion.claim.jti.include")
        .or("false")
        .accepted("Whether that assertion carries a unique id; not used here yet."),
    int("sasl.oauthbearer.assertion.claim.nbf.seconds")
        .or("60")
        .between(0, 3600)
        .low()
        .accepted("How far back that assertion is valid; not used here yet."),
    string("sasl.oauthbearer.assertion.claim.sub")
        .accepted("Subject claim of that assertion; not used here yet."),
    string("sasl.oauthbearer.assertion.file")
        .accepted("File with a ready-made assertion; not used here yet."),
    string("sasl.oauthbearer.assertion.private.key.file")
        .accepted("File with the key that signs the assertion; not used here yet."),
    password("sasl.oauthbearer.assertion.private.key.passphrase")
        .accepted("Passphrase of that key; not used here yet."),
    string("sasl.oauthbearer.assertion.template.file")
        .accepted("File with fixed headers and claims of the assertion; not used here yet."),
    string("sasl.oauthbearer.client.credentials.client.id")
        .accepted("Client id towards the identity provider; not used here yet."),
    password("sasl.oauthbearer.client.credentials.client.secret")
        .accepted("Client secret towards the identity provider; not used here yet."),
    int("sasl.oauthbearer.clock.skew.seconds")
        .or("30")
        .low()
        .accepted("Clock difference that is tolerated when a token is checked; not used here yet."),
    list("sasl.oauthbearer.expected.audience")
        .or("")
        .check(Check::List { may_be_empty: true })
        .high()
        .accepted("Audiences that a token may be for; not used here yet."),
    string("sasl.oauthbearer.expected.issuer")
        .high()
        .accepted("Issuer that a token must come from; not used here yet."),
    long("sasl.oauthbearer.jwks.endpoint.refresh.ms")
        .or("3600000")
        .low()
        .accepted("How often the provider's keys are fetched; not used here yet."),
    long("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms").or("10000").low().accepted(
        "Longest pause between attempts to fetch the provider's keys; not used here yet.",
    ),
    long("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms")
        .or("100")
        .low()
        .accepted("First pause between attempts to fetch the provider's keys; not used here yet."),
    string("sasl.oauthbearer.jwks.endpoint.url")
        .accepted("Where the provider's keys are; not used here yet."),
    class("sasl.oauthbearer.jwt.retriever.class")
        .or("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever")
        .accepted("Java class that fetches tokens; no meaning here."),
    class("sasl.oauthbearer.jwt.validator.class")
        .or("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator")
        .accepted("Java class that checks tokens; no meaning here."),
    string("sasl.oauthbearer.scope")
        .accepted("Scope asked for in a token request; not used here yet."),
    string("sasl.oauthbearer.scope.claim.name")
        .or("scope")
        .low()
        .accepted("Claim that holds a token's scope; not used here yet."),
    string("sasl.oauthbearer.sub.claim.name")
        .or("sub")
        .low()
        .accepted("Claim that holds a token's user; not used here yet."),
    string("sasl.oauthbearer.token.endpoint.url")
        .accepted("Where tokens are asked for; not used here yet."),
    class("sasl.server.callback.handler.class")
        .accepted("Java class for the server side of SASL; no meaning here."),
    int("sasl.server.max.receive.size")
        .or("524288")
        .accepted("Largest message before authentication is done; no SASL listener is served yet."),
];
