package credential

import (
	"sync"
	"time"

	"parley.internal/shared/identity"
)

// cacheTime is the time for which a token is used without reading the document. A revocation takes effect within this
// time, and so does a new login without a call of Keeper.Forget.
const cacheTime = time.Minute

// cachedToken is a token in the memory of this process.
type cachedToken struct {
	token Token
	at    time.Time // when the document was read
	// unsaved marks a token issued to this process and not yet stored in Firestore. replaces is the version of the
	// token before.
	unsaved  bool
	replaces int64
}

// tokenCache holds a token for each credential in use, until the credential is replaced, revoked or deleted. It is safe
// for concurrent use.
type tokenCache struct {
	mu     sync.Mutex
	tokens map[identity.UserID]cachedToken
}

func (c *tokenCache) get(id identity.UserID) (cachedToken, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, ok := c.tokens[id]
	return got, ok
}

func (c *tokenCache) set(id identity.UserID, t cachedToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[id] = t
}

// add stores a token read at a time, unless the cache has a later or an unsaved token.
func (c *tokenCache) add(id identity.UserID, t Token, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if got, ok := c.tokens[id]; ok && (got.token.version > t.version || got.unsaved && got.token.version == t.version) {
		return
	}
	c.tokens[id] = cachedToken{token: t, at: at}
}

// forget removes a token unless it is unsaved.
func (c *tokenCache) forget(id identity.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.tokens[id].unsaved {
		delete(c.tokens, id)
	}
}

func (c *tokenCache) remove(id identity.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, id)
}
