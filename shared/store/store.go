// Package store keeps what Parley knows in Firestore. This is the data model, all of it in one place:
//
//	users/{platform:id}              a person: [User]
//	identities/{platform:id}         whose that id is, if not a person's own: [Link]
//	gateways/api/tokens/{hash}       a WebSocket client's token, by its SHA-256: [Token]
//	personalities/{id}               how answers are worded: [Personality]
//	rules/{id}                       what enrichment adds to which events: [Rule]
//	conversations/{hash}             the last turns of one user in one channel: [Conversation]
//	deliveries/{hash}                the outcome of every answer; package egress alone writes it
//	deadletters/{hash}               what was given up, with its reason; package egress alone writes it
//	moderation/{hash}                who had what done to whom, and what came of it, kept for ever; package moderation alone writes it
//	credentials/{platform:id}        OAuth tokens of people and bots, encrypted; package credential alone reads and writes it
//	logins/{hash}                    logins that were begun; gateway/oauth alone reads and writes it
//
// Document ids that a program makes are hashes, because Firestore slows down where ids grow in sequence
// (https://cloud.google.com/firestore/docs/best-practices#document_ids).
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/config"
)

// Connect opens a Firestore client for a deployment, or for the emulator that FIRESTORE_EMULATOR_HOST names.
func Connect(ctx context.Context, d config.Deployment, opts ...option.ClientOption) (*firestore.Client, error) {
	client, err := firestore.NewClientWithDatabase(ctx, d.Project, d.Database, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Firestore: %w", err)
	}
	return client, nil
}

// reachWait is how long Firestore may take to answer somebody who waits at a terminal.
const reachWait = 15 * time.Second

// Reach fails if Firestore does not answer. By itself the client asks again without an end, and says nothing. Reading a
// document that is not there is an answer, too.
func Reach(ctx context.Context, client *firestore.Client) error {
	waiting, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	_, err := client.Collection("users").Doc(TokenHash("")).Get(waiting)
	if err == nil || status.Code(err) == codes.NotFound {
		return nil
	}
	if host := os.Getenv("FIRESTORE_EMULATOR_HOST"); host != "" {
		return fmt.Errorf("no Firestore emulator answers at %s, which FIRESTORE_EMULATOR_HOST names: %w", host, err)
	}
	return fmt.Errorf("reach Firestore: %w", err)
}

// ErrConflict means that a document changed between being read and being written: read it again and decide anew.
var ErrConflict = errors.New("document changed meanwhile")

// Store reads and writes the collections above. It is safe for concurrent use.
type Store struct {
	client *firestore.Client
}

// New makes a store on a client, which stays the caller's to close.
func New(client *firestore.Client) *Store { return &Store{client: client} }

// Token lets a WebSocket client in as a user.
type Token struct {
	UserID     string    `firestore:"user_id"`
	ExpiresAt  time.Time `firestore:"expires_at,omitempty"` // zero for never
	CreatedAt  time.Time `firestore:"created_at,omitempty"`
	LastUsedAt time.Time `firestore:"last_used_at,omitempty"`
	RevokedAt  time.Time `firestore:"revoked_at,omitempty"` // zero for a token that is in force
}

// TokenHash is the name under which a raw token is known. The raw token itself is stored nowhere.
func TokenHash(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return hex.EncodeToString(sum[:])
}

// Token reads a token by its hash and reports whether there is one.
func (s *Store) Token(ctx context.Context, hash string) (Token, bool, error) {
	snap, err := s.token(hash).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return Token{}, false, nil
	}
	if err != nil {
		return Token{}, false, fmt.Errorf("read a token: %w", err)
	}
	var t Token
	if err := snap.DataTo(&t); err != nil {
		return Token{}, false, fmt.Errorf("read a token: %w", err)
	}
	return t, true, nil
}

// PutToken writes a token under its hash.
func (s *Store) PutToken(ctx context.Context, hash string, t Token) error {
	if _, err := s.token(hash).Set(ctx, t); err != nil {
		return fmt.Errorf("write a token: %w", err)
	}
	return nil
}

// TouchToken notes that a token was used.
func (s *Store) TouchToken(ctx context.Context, hash string, at time.Time) error {
	if _, err := s.token(hash).Update(ctx, []firestore.Update{{Path: "last_used_at", Value: at}}); err != nil {
		return fmt.Errorf("note the use of a token: %w", err)
	}
	return nil
}

func (s *Store) token(hash string) *firestore.DocumentRef {
	return s.client.Doc("gateways/api/tokens/" + hash)
}

// Personality words answers.
type Personality struct {
	ID        string    `firestore:"-"`
	Name      string    `firestore:"name"`
	Text      string    `firestore:"text"`
	Status    string    `firestore:"status"` // only [StatusActive] ones are used
	Version   int64     `firestore:"version,omitempty"`
	UpdatedAt time.Time `firestore:"updatedAt,omitempty"`
	Model     string    `firestore:"model,omitempty"` // a model of its own; the configured one if empty
}

// StatusActive is the status of a personality that is in use.
const StatusActive = "active"

// Personality finds the active personality with a name, the one of the highest version where there are several, and
// reports whether there is one.
func (s *Store) Personality(ctx context.Context, name string) (Personality, bool, error) {
	snaps, err := s.client.Collection("personalities").Where("name", "==", name).Where("status", "==", StatusActive).Documents(ctx).GetAll()
	if err != nil {
		return Personality{}, false, fmt.Errorf("read personality %q: %w", name, err)
	}
	var best Personality
	for _, snap := range snaps {
		var p Personality
		if err := snap.DataTo(&p); err != nil {
			return Personality{}, false, fmt.Errorf("read personality %s: %w", snap.Ref.ID, err)
		}
		p.ID = snap.Ref.ID
		if best.ID == "" || p.Version > best.Version {
			best = p
		}
	}
	return best, best.ID != "", nil
}

// Rule adds something to the events for which its condition holds.
type Rule struct {
	ID          string           `firestore:"-"`
	Enabled     bool             `firestore:"enabled"`
	Priority    float64          `firestore:"priority"` // the lower is evaluated first
	When        string           `firestore:"when"`     // a CEL expression over event, which gives a truth value
	Annotations []RuleAnnotation `firestore:"annotations,omitempty"`
	Candidates  []RuleCandidate  `firestore:"candidates,omitempty"`
	Slip        []string         `firestore:"slip,omitempty"` // steps to be done: "personality" is the one that there is
	Egress      *RuleEgress      `firestore:"egress,omitempty"`
	Action      *RuleAction      `firestore:"action,omitempty"`
	Cooldown    int64            `firestore:"cooldownSeconds,omitempty"` // silence after it held, for one user in one channel
}

// RuleAnnotation is an annotation that a rule adds.
type RuleAnnotation struct {
	Kind  string   `firestore:"kind"`
	Value string   `firestore:"value,omitempty"`
	Label string   `firestore:"label,omitempty"`
	Text  string   `firestore:"text,omitempty"` // becomes payload.text
	Name  string   `firestore:"name,omitempty"` // becomes payload.name
	Score *float64 `firestore:"score,omitempty"`
}

// RuleCandidate is an answer that a rule gives by itself.
type RuleCandidate struct {
	Kind       string   `firestore:"kind,omitempty"`
	Text       string   `firestore:"text"`               // with {{ CEL expressions over event }} filled in
	Priority   *float64 `firestore:"priority,omitempty"` // the lower wins; the rule's own if there is none
	Confidence *float64 `firestore:"confidence,omitempty"`
}

// RuleEgress says where a rule's answer goes, or that of the step that it asks for.
type RuleEgress struct {
	Destination string `firestore:"destination,omitempty"` // a platform; where the event came from if empty
	Type        string `firestore:"type,omitempty"`        // chat, dm or event
	Audience    string `firestore:"audience,omitempty"`    // "user" (or empty): who asked; "channel": everybody in the channel, for a rule's own answer only

	// To are places that the answer goes to instead, each as a delivery of its own. The answer of a rule without slip is
	// then a relay: it goes to those places except the one where the event came from, beside whatever else is answered.
	To []RuleAddress `firestore:"to,omitempty"`
}

// RuleAddress is a channel of a platform.
type RuleAddress struct {
	Destination string `firestore:"destination"` // twitch, discord or api-gateway
	Channel     string `firestore:"channel"`     // twitch:<login>, discord:<channel id>, or the name of a web room
}

// RuleAction is what a rule does to a person or to what they said, as package moderation describes it. Whoever writes the
// rule vouches for it: the rule's condition alone decides for whom it acts. All but Action are texts with
// {{ CEL expressions over event }} filled in; one that comes out empty is not there.
type RuleAction struct {
	Action          string `firestore:"action"`                    // ban, timeout, unban or delete
	Channel         string `firestore:"channel,omitempty"`         // where the event happened if empty
	UserID          string `firestore:"userId,omitempty"`          // whom, by id
	Login           string `firestore:"login,omitempty"`           // or, on Twitch, by name
	MessageID       string `firestore:"messageId,omitempty"`       // of a delete
	DurationSeconds any    `firestore:"durationSeconds,omitempty"` // of a timeout: a number, or a text
	Reason          string `firestore:"reason,omitempty"`          // is cut to what platforms take
}

// Rules reads the enabled rules, in no particular order. A document that is not a rule is left out, and its id with
// what is wrong with it is in broken.
func (s *Store) Rules(ctx context.Context) (rules []Rule, broken map[string]error, err error) {
	snaps, err := s.client.Collection("rules").Where("enabled", "==", true).Documents(ctx).GetAll()
	if err != nil {
		return nil, nil, fmt.Errorf("read the rules: %w", err)
	}
	broken = map[string]error{}
	for _, snap := range snaps {
		var r Rule
		if err := snap.DataTo(&r); err != nil {
			broken[snap.Ref.ID] = err
			continue
		}
		r.ID = snap.Ref.ID
		rules = append(rules, r)
	}
	return rules, broken, nil
}

// Conversation is what one user and the model said to each other in one channel, the oldest turn first.
type Conversation struct {
	Turns     []Turn    `firestore:"turns"`
	UpdatedAt time.Time `firestore:"updatedAt"`
	ExpireAt  time.Time `firestore:"expireAt"` // the collection's TTL field
}

// Turn is a question with its answer.
type Turn struct {
	ID       string    `firestore:"id"` // the correlation id: a turn that is written twice stands once
	Question string    `firestore:"question"`
	Answer   string    `firestore:"answer"`
	At       time.Time `firestore:"at"`
}

// Conversation reads the conversation of a user in a channel; it is empty if there is none.
func (s *Store) Conversation(ctx context.Context, user, channel string) (Conversation, error) {
	snap, err := s.conversation(user, channel).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return Conversation{}, nil
	}
	if err != nil {
		return Conversation{}, fmt.Errorf("read the conversation of %s: %w", user, err)
	}
	var c Conversation
	if err := snap.DataTo(&c); err != nil {
		return Conversation{}, fmt.Errorf("read the conversation of %s: %w", user, err)
	}
	return c, nil
}

// PutConversation writes the conversation of a user in a channel.
func (s *Store) PutConversation(ctx context.Context, user, channel string, c Conversation) error {
	if _, err := s.conversation(user, channel).Set(ctx, c); err != nil {
		return fmt.Errorf("write the conversation of %s: %w", user, err)
	}
	return nil
}

func (s *Store) conversation(user, channel string) *firestore.DocumentRef {
	sum := sha256.Sum256([]byte(channel + "|" + user))
	return s.client.Collection("conversations").Doc(hex.EncodeToString(sum[:16]))
}
