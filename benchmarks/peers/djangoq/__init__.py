"""django-q2 alone: a task a saga, whose steps are recorded by plain ORM writes, one commit a step."""
