package model

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// OpenAIOptions configures an endpoint with OpenAI's protocol.
type OpenAIOptions struct {
	Name    string       // name of the model
	Key     string       // empty if the endpoint requires none
	BaseURL string       // empty for the official endpoint
	HTTP    *http.Client // nil for a default client
}

// OpenAI is a model behind the chat completions protocol, implemented by OpenAI and by most servers of open models.
type OpenAI struct {
	client   openai.Client
	name     string
	key      string
	official bool // the endpoint is OpenAI's
}

const officialBaseURL = "https://api.openai.com/v1/"

// NewOpenAI returns a model.
func NewOpenAI(o OpenAIOptions) *OpenAI {
	// Key and URL are always set, even if empty or the default. Otherwise the library reads environment variables.
	opts := []option.RequestOption{
		option.WithMaxRetries(0), option.WithAPIKey(o.Key), option.WithBaseURL(cmp.Or(o.BaseURL, officialBaseURL)),
	}
	if o.HTTP != nil {
		opts = append(opts, option.WithHTTPClient(o.HTTP))
	}
	return &OpenAI{client: openai.NewClient(opts...), name: o.Name, key: o.Key, official: o.BaseURL == ""}
}

// Generate implements [Model].
func (o *OpenAI) Generate(ctx context.Context, r Request) (Reply, error) {
	var messages []openai.ChatCompletionMessageParamUnion
	if instruction := r.Instruction(); instruction != "" {
		messages = append(messages, openai.SystemMessage(instruction))
	}
	for _, t := range r.Turns {
		messages = append(messages, openai.UserMessage(t.Question), openai.AssistantMessage(t.Answer))
	}
	messages = append(messages, openai.UserMessage(r.Text))
	name := cmp.Or(r.Model, o.name)
	params := openai.ChatCompletionNewParams{Model: name, Messages: messages}
	switch {
	case r.MaxTokens == 0:
	case o.official: // OpenAI's newer models refuse the older name
		params.MaxCompletionTokens = openai.Int(int64(r.MaxTokens))
	default: // servers of open models know only the older name
		params.MaxTokens = openai.Int(int64(r.MaxTokens))
	}
	resp, err := o.client.Chat.Completions.New(ctx, params)
	if err != nil {
		f := failure{key: o.key, err: err}
		if api, ok := errors.AsType[*openai.Error](err); ok {
			f.status, f.code, f.detail = api.StatusCode, api.Code, strings.TrimSpace(api.Code+" "+api.Message)
		}
		return Reply{}, f.toError(ctx)
	}
	return o.reply(ctx, resp, name)
}

// reply converts a response. Only the text parts of the content are the reply: reasoning_content and similar fields hold
// the model's thoughts.
func (o *OpenAI) reply(ctx context.Context, resp *openai.ChatCompletion, name string) (Reply, error) {
	if f, ok := errorIn(resp.JSON.ExtraFields["error"].Raw()); ok {
		f.key = o.key
		return Reply{}, f.toError(ctx)
	}
	if len(resp.Choices) == 0 || !resp.Choices[0].JSON.Message.Valid() {
		return Reply{}, failure{key: o.key, err: errors.New("the response holds no message: " + resp.RawJSON())}.toError(ctx)
	}
	c := resp.Choices[0]
	if f, ok := errorIn(c.JSON.ExtraFields["error"].Raw()); ok {
		f.key = o.key
		return Reply{}, f.toError(ctx)
	}
	text, refused := contentText(c.Message.JSON.Content.Raw())
	if refused = cmp.Or(c.Message.Refusal, refused); strings.TrimSpace(refused) != "" {
		return Reply{}, refusal(o.key, "the model refused: "+refused)
	}
	out := output{text: text, reason: c.FinishReason}
	for _, field := range []string{"reasoning_content", "reasoning", "thinking", "reasoning_details"} {
		out.thoughts = out.thoughts || !emptyJSON(c.Message.JSON.ExtraFields[field].Raw())
	}
	said, err := out.answer(ctx, o.key)
	if err != nil {
		return Reply{}, err
	}
	return Reply{
		Text: said, Model: cmp.Or(resp.Model, name),
		InputTokens: resp.Usage.PromptTokens, OutputTokens: resp.Usage.CompletionTokens,
	}, nil
}

// contentPart is a part of a message's content. Parts of other types than text and refusal are thoughts, references and
// the like.
type contentPart struct {
	Type    string `json:"type"`
	Text    any    `json:"text"` // a string, or an object with the string as its value
	Refusal string `json:"refusal"`
	Thought bool   `json:"thought"`
}

// contentText returns the text in a message's content: a string, a part, or a list of both. Mistral's reasoning models,
// for example, answer with a list (https://docs.mistral.ai/capabilities/reasoning/).
func contentText(raw string) (text, refused string) {
	var parts []json.RawMessage
	switch {
	case json.Unmarshal([]byte(raw), &text) == nil:
		return text, ""
	case json.Unmarshal([]byte(raw), &parts) != nil:
		parts = []json.RawMessage{json.RawMessage(raw)}
	}
	for _, raw := range parts {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			text += s
			continue
		}
		var p contentPart
		if json.Unmarshal(raw, &p) != nil || p.Thought {
			continue
		}
		switch p.Type {
		case "", "text", "output_text":
			if value, ok := p.Text.(map[string]any); ok {
				p.Text = value["value"]
			}
			s, _ = p.Text.(string)
			text += s
		case "refusal":
			refused += p.Refusal
		}
	}
	return text, refused
}
