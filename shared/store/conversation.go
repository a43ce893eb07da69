package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Conversation holds the last turns between a user and the model in a channel, the oldest first.
type Conversation struct {
	Turns     []Turn    `firestore:"turns"`
	UpdatedAt time.Time `firestore:"updatedAt"`
	ExpireAt  time.Time `firestore:"expireAt"` // the collection's TTL field
}

// Turn is a question and its answer.
type Turn struct {
	ID       string    `firestore:"id"` // the correlation id; a conversation contains at most one turn with an id
	Question string    `firestore:"question"`
	Answer   string    `firestore:"answer"`
	At       time.Time `firestore:"at"`
}

// Conversation reads the conversation of a user in a channel. A missing document gives an empty conversation.
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

// PutConversation replaces the conversation of a user in a channel.
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
