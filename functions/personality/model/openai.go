package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// reply converts a response.
func (o *OpenAI) reply(ctx context.Context, resp *openai.ChatCompletion, name string) (Reply, error) {
	if len(resp.Choices) == 0 {
		return Reply{}, failure{key: o.key, err: errors.New("the response holds no choice")}.toError(ctx)
	}
	c := resp.Choices[0]
	switch {
	case c.Message.Refusal != "":
		return Reply{}, refusal(o.key, "the model refused: "+c.Message.Refusal)
	case c.FinishReason == "content_filter":
		return Reply{}, refusal(o.key, "the answer was withheld: content_filter")
	case strings.TrimSpace(c.Message.Content) == "":
		return Reply{}, refusal(o.key, fmt.Sprintf("the answer is empty (finish reason %q)", c.FinishReason))
	}
	return Reply{
		Text: c.Message.Content, Model: cmp.Or(resp.Model, name),
		InputTokens: resp.Usage.PromptTokens, OutputTokens: resp.Usage.CompletionTokens,
	}, nil
}
