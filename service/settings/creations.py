"""How sessions come to be: the ids that they are given."""

from pydantic_settings import BaseSettings

from service.life.sessions import IdFormat


class CreationSettings(BaseSettings):
    """What is up to the service when a client opens a session."""

    session_id_format: IdFormat = "uuid"
