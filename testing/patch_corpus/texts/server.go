package invoice

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
)

// ErrMissing says that there is no such invoice.
var ErrMissing = errors.New("invoice: not found")

type Server struct {
	mu    sync.RWMutex
	items map[int]string
	limit int
}

func NewServer(limit int) *Server {
	return &Server{
		items: make(map[int]string),
		limit: limit,
	}
}

func (s *Server) Get(id int) (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	text, ok := s.items[id]
	if !ok {
		return "", ErrMissing
	}
	return text, nil
}

func (s *Server) Put(id int, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.items) >= s.limit {
		return errors.New("invoice: full")
	}
	s.items[id] = text
	return nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.URL.Query().Get("id"))
	if err != nil {
		http.Error(w, "bad id", http.StatusBadRequest)
		return
	}
	switch r.Method {
	case http.MethodGet:
		text, err := s.Get(id)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"text": text})
	case http.MethodPut:
		if err := s.Put(id, r.FormValue("text")); err != nil {
			http.Error(w, err.Error(), http.StatusInsufficientStorage)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}
