package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Seed is what a local Parley starts with: documents by id, in the form in which Firestore keeps them.
type Seed struct {
	Users         map[string]map[string]any `yaml:"users"`
	Personalities map[string]map[string]any `yaml:"personalities"`
	Rules         map[string]map[string]any `yaml:"rules"`
	Identities    map[string]map[string]any `yaml:"identities"`
}

// ParseSeed reads a seed from YAML. The error names every document that has an unknown field or an id that can't be.
func ParseSeed(data []byte) (Seed, error) {
	var s Seed
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return Seed{}, fmt.Errorf("read the seed: %w", err)
	}
	var errs []error
	for _, c := range s.collections() {
		for _, id := range slices.Sorted(maps.Keys(c.docs)) {
			if c.name == "users" || c.name == "identities" {
				if _, err := identity.Parse(id); err != nil {
					errs = append(errs, fmt.Errorf("%s/%s: %w", c.name, id, err))
				}
			}
			if c.name == "identities" {
				errs = append(errs, s.checkLink(id))
			}
			for _, field := range slices.Sorted(maps.Keys(c.docs[id])) {
				if !c.fields[field] {
					errs = append(errs, fmt.Errorf("%s/%s: unknown field %q", c.name, id, field))
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Seed{}, fmt.Errorf("read the seed: %w", err)
	}
	return s, nil
}

// checkLink refuses a link that is not followed, and one to somebody who is linked to another.
func (s Seed) checkLink(id string) error {
	who, err := identity.Parse(id)
	if err != nil {
		return nil // told already
	}
	user, _ := s.Identities[id]["user"].(string)
	person, err := store.Link{ID: who, User: user}.Person()
	if err != nil {
		return err
	}
	if _, chained := s.Identities[person.String()]; chained {
		return fmt.Errorf("identities/%s: user: %s is linked itself", id, person)
	}
	return nil
}

type collection struct {
	name   string
	docs   map[string]map[string]any
	fields map[string]bool
}

func (s Seed) collections() []collection {
	return []collection{
		{"users", s.Users, fieldsOf[store.User]()},
		{"personalities", s.Personalities, fieldsOf[store.Personality]()},
		{"rules", s.Rules, fieldsOf[store.Rule]()},
		{"identities", s.Identities, fieldsOf[store.Link]()},
	}
}

// fieldsOf lists the names under which Firestore keeps T's fields.
func fieldsOf[T any]() map[string]bool {
	t := reflect.TypeFor[T]()
	names := map[string]bool{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("firestore"), ","); name != "-" {
			names[name] = true
		}
	}
	return names
}

// tokenLifetime is long enough for a day's work, and short enough that a token in a terminal's history is soon void.
const tokenLifetime = 24 * time.Hour

// Plant writes the seed's documents where there are none, and makes a token for each user.
func (s Seed) Plant(ctx context.Context, client *firestore.Client, now time.Time) (tokens map[string]string, err error) {
	for _, c := range s.collections() {
		for id, doc := range c.docs {
			_, err := client.Collection(c.name).Doc(id).Create(ctx, doc)
			if err != nil && status.Code(err) != codes.AlreadyExists {
				return nil, fmt.Errorf("seed %s/%s: %w", c.name, id, err)
			}
		}
	}
	tokens = make(map[string]string, len(s.Users))
	st := store.New(client)
	for id := range s.Users {
		raw := rand.Text()
		err := st.PutToken(ctx, store.TokenHash(raw), store.Token{UserID: id, CreatedAt: now, ExpiresAt: now.Add(tokenLifetime)})
		if err != nil {
			return nil, err
		}
		tokens[id] = raw
	}
	return tokens, nil
}
