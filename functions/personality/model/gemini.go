package model

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/genai"
)

// GeminiOptions configures a Gemini model.
type GeminiOptions struct {
	Name     string       // name of the model
	Key      string       // key of the Gemini API; empty for Vertex AI as the service account
	Project  string       // for Vertex AI
	Location string       // for Vertex AI: global or a region
	BaseURL  string       // empty for the default
	HTTP     *http.Client // nil for a default client; for Vertex AI a given client must authenticate itself
}

// Gemini is a Google model, called by the Gemini API or Vertex AI.
type Gemini struct {
	client *genai.Client
	name   string
	key    string
}

// NewGemini returns a model. It fails if Vertex AI has no credentials.
func NewGemini(ctx context.Context, o GeminiOptions) (*Gemini, error) {
	c := &genai.ClientConfig{
		Backend: genai.BackendGeminiAPI, APIKey: o.Key, HTTPOptions: genai.HTTPOptions{BaseURL: o.BaseURL},
	}
	if o.HTTP != nil {
		given := *o.HTTP // a copy, because the transport is replaced
		c.HTTPClient = &given
	}
	if o.Key == "" {
		c.Backend, c.Project, c.Location = genai.BackendVertexAI, o.Project, o.Location
	}
	client, err := genai.NewClient(ctx, c)
	if err != nil {
		// Some errors of the library quote the whole configuration, with the key.
		return nil, errors.New("set up Gemini: " + redact(o.Key, err.Error()))
	}
	used := client.ClientConfig().HTTPClient // for Vertex AI, the library makes a client that authenticates itself
	used.Transport = errorTransport{used.Transport}
	return &Gemini{client: client, name: o.Name, key: o.Key}, nil
}

// errorTransport fails for a response with status 200 and an error in its body. The library discards such an error.
type errorTransport struct {
	base http.RoundTripper // nil for the default
}

// RoundTrip implements [http.RoundTripper].
func (t errorTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	base := t.base
	if base == nil {
		base = http.DefaultTransport
	}
	resp, err := base.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var response struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &response) == nil {
		if f, ok := errorIn(string(response.Error)); ok {
			return nil, f
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// Generate implements [Model].
func (g *Gemini) Generate(ctx context.Context, r Request) (Reply, error) {
	var contents []*genai.Content
	for _, t := range r.Turns {
		contents = append(contents, genai.NewContentFromText(t.Question, genai.RoleUser), genai.NewContentFromText(t.Answer, genai.RoleModel))
	}
	contents = append(contents, genai.NewContentFromText(r.Text, genai.RoleUser))
	config := &genai.GenerateContentConfig{MaxOutputTokens: int32(r.MaxTokens)}
	if instruction := r.Instruction(); instruction != "" {
		config.SystemInstruction = genai.NewContentFromText(instruction, genai.RoleUser) // the API has no role for instructions
	}
	name := cmp.Or(r.Model, g.name)
	resp, err := g.client.Models.GenerateContent(ctx, name, contents, config)
	if err != nil {
		f := failure{err: err}
		if in, ok := errors.AsType[failure](err); ok {
			f = in
		}
		f.key = g.key
		if api, ok := errors.AsType[genai.APIError](err); ok {
			f.status, f.code, f.detail = api.Code, api.Status, strings.TrimSpace(api.Status+" "+api.Message)
		}
		return Reply{}, f.toError(ctx)
	}
	return g.reply(ctx, resp, name)
}

// reply converts a response. Thought parts are not part of the reply.
func (g *Gemini) reply(ctx context.Context, resp *genai.GenerateContentResponse, name string) (Reply, error) {
	if f := resp.PromptFeedback; f != nil && f.BlockReason != "" && f.BlockReason != genai.BlockedReasonUnspecified {
		return Reply{}, refusal(g.key, fmt.Sprintf("the question was blocked: %s %s", f.BlockReason, f.BlockReasonMessage))
	}
	if len(resp.Candidates) == 0 {
		return Reply{}, failure{key: g.key, err: errors.New("the response holds no candidate")}.toError(ctx)
	}
	c := resp.Candidates[0]
	out := output{reason: string(c.FinishReason), detail: c.FinishMessage}
	if c.Content != nil {
		for _, part := range c.Content.Parts {
			if part.Thought {
				out.thoughts = true
			} else {
				out.text += part.Text
			}
		}
	}
	text, err := out.answer(ctx, g.key)
	if err != nil {
		return Reply{}, err
	}
	reply := Reply{Text: text, Model: cmp.Or(resp.ModelVersion, name)}
	if u := resp.UsageMetadata; u != nil {
		reply.InputTokens, reply.OutputTokens = int64(u.PromptTokenCount), int64(u.CandidatesTokenCount+u.ThoughtsTokenCount)
	}
	return reply, nil
}
