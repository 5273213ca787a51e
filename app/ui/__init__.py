"""The interface for people: Streamlit pages that ask the API and draw."""
