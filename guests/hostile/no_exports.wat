;; An empty module.
;; A sound host: loads it for plain calls, where every name is unknown; refuses to bind it to a hook.
(module)
