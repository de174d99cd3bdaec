"use strict";
// What is not here is as The Lounge has it.
module.exports = {
    public: {{ a.people == 'everybody' }},
    host: {{ 'unix:' ~ socket }},
    // The edge speaks TLS and says who the visitor is.
    reverseProxy: true,
    maxHistory: {{ a.history }},
    theme: "default",
    // Links in messages are not fetched by the server: it would be a way into the site's network.
    prefetch: false,
    fileUpload: {enable: false},
    leaveMessage: {{ site.domain }},
    defaults: {
        name: {{ answers.ngircd.network }},
        host: "127.0.0.1",
        port: 6667,
        password: "",
        tls: false,
        rejectUnauthorized: false,
        nick: "guest%%%",
        username: "guest",
        realname: "",
        join: {{ '#' ~ (answers.ngircd.channels|replace(' ', ',#')) }},
        leaveMessage: "",
    },
    // Nobody uses the site to reach another server.
    lockNetwork: true,
    messageStorage: {{ ['sqlite'] if a.people == 'accounts' else [] }},
    storagePolicy: {
        enabled: {{ a.people == 'accounts' and a.days > 0 }},
        maxAgeDays: {{ a.days if a.people == 'accounts' and a.days > 0 else 1 }},
        deletionPolicy: "everything",
    },
    debug: {ircFramework: {{ generic.version == 'dev' }}, raw: false},
};
