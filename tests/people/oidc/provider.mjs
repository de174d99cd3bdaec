// An OpenID provider for the tests: node provider.mjs PORT CLIENT SECRET REDIRECT
import Provider from 'oidc-provider';

const [port, client, secret, redirect] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
// Who signs in as "ana=42" is called ana and is another subject than "ana".
const claims = (login) => {
  const [name] = login.split('=');
  const groups = { ana: ['pupils', 'class-1'], tess: ['teachers'], ada: ['admins'] }[name] ?? [];
  return { sub: login, preferred_username: name, name: `Person ${name}`, email: `${name}@school.test`, groups };
};
const provider = new Provider(issuer, {
  clients: [{ client_id: client, client_secret: secret, redirect_uris: [redirect] }],
  pkce: { required: () => true },
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'email', 'groups'],
  cookies: { keys: ['for the tests only'] },
  findAccount: (_ctx, id) => ({ accountId: id, claims: async () => claims(id) }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
