"""A mail server in a process of its own, over aiosmtpd (Debian: python3-aiosmtpd).

smtpd.py CERTIFICATE KEY MODE, where MODE is starttls, implicit, or plain, which offers no TLS. It says its port on the first line, then
a line of JSON for each mail that it has taken. What it does with one is said by to whom it is: busy@ is told to come back twice,
unknown@ is refused, at die@ the process ends before it answers, and deaf@ is never answered,
once a line has said that it has come so far.
"""
import asyncio
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Handler:
    busy = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "unknown":
            return "550 5.1.1 no such person\u202e"
        if name == "busy" and self.busy < 2:
            self.busy += 1
            return "451 4.3.0 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        name = envelope.rcpt_tos[0].split("@")[0]
        if name == "die":
            os._exit(1)
        if name == "deaf":
            print("{}", flush=True)
            await asyncio.sleep(3600)
        print(json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.authenticated else "", "content": envelope.content.decode(),
        }), flush=True)
        return "250 taken"


def authenticator(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == b"naru" and data.password == b"open sesame"
    return AuthResult(success=good, auth_data=data)


async def main():
    certificate, key, mode = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = Handler()

    def session():
        options = dict(enable_SMTPUTF8=True, ident="test", authenticator=authenticator)
        if mode == "starttls":
            options.update(tls_context=context, require_starttls=True, auth_required=True)
        elif mode == "implicit":
            options.update(auth_required=True, auth_require_tls=False)
        return SMTP(handler, **options)

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0, ssl=context if mode == "implicit" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
